"""Recognise a file by its first bytes when it is not what its reader expects: one table for all readers.

What the user should do about it depends on what the reader needs, so each reader has remedies of its own.
"""

from __future__ import annotations

from enum import Enum, auto


class FileKind(Enum):
    """A kind of file that a user may give by mistake in place of weights or of a table."""

    GIT_LFS = auto()
    MARKUP = auto()  # HTML or XML
    JSON = auto()
    UTF16 = auto()
    ZIP = auto()
    GZIP = auto()
    BZIP2 = auto()
    XZ = auto()
    SEVEN_ZIP = auto()
    RAR = auto()
    OFFICE = auto()  # a spreadsheet of Excel 97
    PARQUET = auto()
    HDF5 = auto()
    GGUF = auto()
    NUMPY = auto()  # one array


SIGNATURES = (
    (b"version https://git-lfs", FileKind.GIT_LFS),
    (b"<", FileKind.MARKUP),
    (b"{", FileKind.JSON),
    (b"\xff\xfe", FileKind.UTF16),
    (b"\xfe\xff", FileKind.UTF16),
    (b"PK\x03\x04", FileKind.ZIP),
    (b"\x1f\x8b", FileKind.GZIP),
    (b"BZh", FileKind.BZIP2),
    (b"\xfd7zXZ", FileKind.XZ),
    (b"7z\xbc\xaf", FileKind.SEVEN_ZIP),
    (b"Rar!", FileKind.RAR),
    (b"\xd0\xcf\x11\xe0", FileKind.OFFICE),
    (b"PAR1", FileKind.PARQUET),
    (b"\x89HDF", FileKind.HDF5),
    (b"GGUF", FileKind.GGUF),
    (b"\x93NUMPY", FileKind.NUMPY),
)


def kind_of(head: bytes) -> FileKind | None:
    """Return the kind whose signature the first bytes of a file begin with; None for any other content."""
    return next((kind for signature, kind in SIGNATURES if head.startswith(signature)), None)
