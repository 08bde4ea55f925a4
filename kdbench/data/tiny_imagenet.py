"""Tiny-ImageNet as its archive unpacks: train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt.

The validation part is the test part (the archive's own test images have no labels). Classes are in the order of
their WordNet ids. Where the validation images were sorted into folders, the annotations still name their classes;
without the annotations it is a set of class folders (`folders`).
"""

import codecs
import os
from collections import Counter
from pathlib import Path

from kdbench.data.folders import Files, Listing, class_folders, images, labelled, not_read
from kdbench.errors import KdbenchError

ANNOTATIONS = Path("val") / "val_annotations.txt"


def is_tiny_imagenet(root: Path) -> bool:
    """Whether ``root`` has this layout."""
    return (root / ANNOTATIONS).is_file()


def list_tiny_imagenet(root: Path) -> Listing:
    """Raises KdbenchError that names the file which is wrong or missing, and the line."""
    classes = class_folders(root / "train")
    ids = sorted(classes)
    if (root / "wnids.txt").is_file():
        named = set(_text(root / "wnids.txt").split())
        if strangers := sorted(named ^ set(ids)):
            here, there = ("wnids.txt", "train") if strangers[0] in named else ("train", "wnids.txt")
            raise KdbenchError(
                f"{root}: the class {strangers[0]} is in {here} but not in {there}; unpack the archive again"
            )
    others = Counter[str]()
    train = labelled((classes[name] for name in ids), others)
    test = _annotated(root, ids, others)
    parts = (root / "train", root / "val")
    return Listing(root, parts, train, test, tuple(ids), _words(root, ids), tuple(not_read(root, others)))


def _annotated(root: Path, ids: list[str], others: Counter[str]) -> Files:
    """The validation images; a line of the annotations is file, class and four numbers of a box (not read)."""
    labels = {name: label for label, name in enumerate(ids)}
    present = {os.path.basename(file): file for file in images(root / "val", others)}
    files: Files = []
    for number, line in enumerate(_text(root / ANNOTATIONS).splitlines(), 1):
        where = f"{root / ANNOTATIONS}, line {number}"
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) not in (2, 6):
            raise KdbenchError(f"{where} is {line!r} instead of file, class and box; get the file again")
        name, wnid = fields[:2]
        if wnid not in labels:
            raise KdbenchError(f"{where} names the class {wnid}, which is not in {root / 'train'}")
        if name not in present:
            raise KdbenchError(
                f"{where} names {name}, which is not in {root / 'val' / 'images'} or was named twice"
            )
        files.append((present.pop(name), labels[wnid]))
    if present:
        raise KdbenchError(f"{next(iter(present.values()))} has no line in {root / ANNOTATIONS}; remove it")
    if not files:
        raise KdbenchError(f"{root / ANNOTATIONS} names no image; get the file again")
    return files


def _words(root: Path, ids: list[str]) -> tuple[str, ...]:
    """The classes' names in words.txt; the id where it has none."""
    words = {}
    if (root / "words.txt").is_file():
        lines = (line.partition("\t") for line in _text(root / "words.txt").splitlines())
        words = {wnid: text for wnid, _, text in lines if text}
    return tuple(words.get(name, name) for name in ids)


def _text(file: Path) -> str:
    """The text of a file with or without a byte order mark."""
    content = file.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
