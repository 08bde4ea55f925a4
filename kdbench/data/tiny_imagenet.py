"""Tiny-ImageNet as its archive unpacks: train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt.

The validation part is the test part (the archive's own test images have no labels). Classes stand in the order of
their WordNet ids.
"""

import os
from pathlib import Path

from kdbench.data.folders import Files, Listing, class_folders, images, labelled
from kdbench.errors import KdbenchError

ANNOTATIONS = Path("val") / "val_annotations.txt"


def is_tiny_imagenet(root: Path) -> bool:
    """Whether ``root`` has this layout."""
    return (root / ANNOTATIONS).is_file()


def list_tiny_imagenet(root: Path) -> Listing:
    """Raises KdbenchError that names the file which is wrong or missing, and the line."""
    ids = sorted(class_folders(root / "train"))
    if (root / "wnids.txt").is_file():
        told = set(_text(root / "wnids.txt").split())
        if strangers := sorted(told ^ set(ids)):
            here, there = ("wnids.txt", "train") if strangers[0] in told else ("train", "wnids.txt")
            raise KdbenchError(
                f"{root}: the class {strangers[0]} is in {here} but not in {there}; unpack the archive again"
            )
    train = labelled(root / "train" / name / "images" for name in ids)
    return Listing(root, train, _annotated(root, ids), _words(root, ids))


def _annotated(root: Path, ids: list[str]) -> Files:
    """The validation images; a line of the annotations is file, class and four numbers of a box (not read)."""
    labels = {name: label for label, name in enumerate(ids)}
    present = {os.path.basename(file): file for file in images(root / "val" / "images")}
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
    """What words.txt calls the classes; the id where it says nothing."""
    words = {}
    if (root / "words.txt").is_file():
        lines = (line.partition("\t") for line in _text(root / "words.txt").splitlines())
        words = {wnid: text for wnid, _, text in lines if text}
    return tuple(words.get(name, name) for name in ids)


def _text(file: Path) -> str:
    return file.read_text("utf-8", errors="replace")
