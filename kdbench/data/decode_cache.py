"""The cache of decoded images: a folder of many image files is decoded once, then read as one mapped file.

The cache is one safetensors file per data set under ~/.cache/kdbench/decoded (KDBENCH_CACHE replaces ~/.cache/kdbench),
in canonical order with the data set's id, so that nothing is decoded, hashed, sorted or copied again. Any of its files
may be deleted at any time. It is an aid only: where it cannot be written, images stay in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import PIL
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdbench.data.dataset import Dataset, ImageSet
from kdbench.data.folders import Listing, reached
from kdbench.data.images import decode
from kdbench.data.places import cache_folder
from kdbench.data.validation import DARK, dataset
from kdbench.errors import KdbenchError
from kdbench.utils import locks

FORMAT = 3  # of the cache's files
KEY = "kdbench"  # of their header
WHOLE = 1 << 16  # bytes of a file that are read to know it again
PIECE = 1 << 14  # bytes read at the start, in the middle and at the end of a longer one


def read_listing(name: str, listing: Listing, size: int = 0) -> Dataset:
    """The listed images as a data set, from the cache, else decoded and saved there. ``size`` as for `decode`."""
    found = _cached(name, listing, size)
    dark = [note for note in found.notes if DARK in note]  # others were said of the files
    return replace(found, notes=(*listing.notes, *dark))


def _cached(name: str, listing: Listing, size: int) -> Dataset:
    path = cache_folder() / "decoded" / f"{stamp(listing, size)}.safetensors"
    if cached := _open(path, name):
        return cached
    with contextlib.ExitStack() as stack:
        try:  # one process decodes, others wait for its file
            stack.enter_context(locks.held(path.parent, [path.stem], wait=True))
        except KdbenchError as error:
            _warn(path, error.__cause__)
            return dataset(name, decode(listing, size), str(listing.root))
        if cached := _open(path, name):
            return cached
        decoded = dataset(name, decode(listing, size), str(listing.root))
        try:
            _write(path, decoded)
        except (OSError, SafetensorError) as error:
            _warn(path, error)
        return _open(path, name) or decoded


def stamp(listing: Listing, size: int) -> str:
    """Identify a listing's content: each file's path, label, length, times and bytes, and the decoder's versions.

    Of files above 64 KiB three pieces are read, so that large images cost little; an edit between them shows in the
    times: a program can set back that of the last change (archives do), but not that of the inode's. The
    folder's own path counts too, for equal archives have equal times. Raises KdbenchError for an unreadable file.
    """
    hashed = hashlib.sha256()
    decoder = [PIL.__version__, *(features.version(codec) for codec in ("jpg", "webp", "libtiff", "zlib"))]
    where = os.fsencode(listing.root.resolve()).hex()
    hashed.update(json.dumps([FORMAT, decoder, size, listing.class_names, where]).encode())
    skip = len(str(listing.root))
    for part in (listing.train, listing.test):
        hashed.update(f"\n{len(part)}".encode())
        for file, label in part:
            status = reached(file)
            line = (file[skip:], label, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            hashed.update(repr(line).encode() + sample(file, status.st_size))
    return hashed.hexdigest()[:32]


def sample(file: str, length: int) -> bytes:
    """The hash of a file's bytes, or of three pieces of a long one."""
    starts = [0] if length <= WHOLE else [0, (length - PIECE) // 2, length - PIECE]
    hashed = hashlib.blake2b(digest_size=16)
    try:
        with open(file, "rb", buffering=0) as content:
            for start in starts:
                content.seek(start)
                hashed.update(content.read(WHOLE if length <= WHOLE else PIECE))
    except OSError as error:
        raise KdbenchError(f"{file} cannot be read ({error.strerror}); replace or remove it") from error
    return hashed.digest()


def _open(path: Path, name: str) -> Dataset | None:
    """The cached data set, its images mapped (changes of theirs stay in memory); None where there is none."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()[KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError):
        return None
    train, test = (ImageSet(tensors[f"x_{part}"], tensors[f"y_{part}"]) for part in ("train", "test"))
    names, duplicated = tuple(header["class_names"]), header["test_in_train"]
    notes = tuple(header["notes"])
    return Dataset(name, train, test, names, header["id"], notes, test_in_train=duplicated)


def _write(path: Path, decoded: Dataset) -> None:
    """Leaves the whole file or none, whenever the process dies. Raises OSError or SafetensorError."""
    tensors = {
        "x_train": decoded.train.images,
        "y_train": decoded.train.targets,
        "x_test": decoded.test.images,
        "y_test": decoded.test.targets,
    }
    header = {"id": decoded.id, "class_names": decoded.class_names, "test_in_train": decoded.test_in_train}
    header |= {"notes": decoded.notes}
    temporary = path.with_suffix(".tmp")  # the lock is held
    try:
        save_file(tensors, temporary, {KEY: json.dumps(header)})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _warn(path: Path, error: object) -> None:
    print(
        f"WARNING: the decoded images cannot be saved in {path.parent} ({error}), so they stay in memory and are "
        "decoded again next time; set KDBENCH_CACHE to move the cache",
        file=sys.stderr,
    )
