"""Split the bytes of a results file into a header and lines: encodings, line ends, separators, torn and foreign lines.

A record is one physical line. Read are: UTF-8 with or without a byte order mark, line ends of any system, blank
lines, headers repeated by joining files. The last line may lack its line end: with a value for each column it counts
as a row (of one that was cut within its last value, no other is lost); with fewer, or within a quote, it is torn: the
mark of a writer that died.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.results import values
from kdbench.results.schema import CURVE_COLUMNS, CURVES
from kdbench.utils.file_kinds import FileKind, kind_of

BOM = b"\xef\xbb\xbf"
END = re.compile(rb"\r\n|\n|\r")
MARKER = re.compile(r"<{7} |={7}$|\|{7} |>{7} ")
REMEDIES = {  # what a file of another kind is, and what to do
    FileKind.GIT_LFS: "it is a pointer of Git LFS; type `git lfs pull`",
    FileKind.MARKUP: "it is a web page or XML; download the raw file",
    FileKind.JSON: "it is JSON; write the rows as CSV",
    FileKind.UTF16: "it is encoded in UTF-16; save it as CSV in UTF-8",
    FileKind.ZIP: "it is a zip file or a spreadsheet; unpack it, or save the sheet as CSV (UTF-8)",
    FileKind.GZIP: "it is compressed with gzip; unpack it with gunzip",
    FileKind.OFFICE: "it is a spreadsheet; save the sheet as CSV (UTF-8)",
    FileKind.PARQUET: "it is a Parquet file; write the rows as CSV",
}
csv.field_size_limit(2**31 - 1)  # a long `facts` or `error` is a value like another


@dataclass(frozen=True)
class Lines:
    """header: the columns' names. rows: the values of each line. at: the number of each line, from 1.

    torn: the number of a last line that was cut short and is not among the rows; 0 where there is none.
    """

    header: list[str]
    rows: list[list[str]]
    at: list[int]
    torn: int


def content(path: Path) -> bytes:
    """The bytes of a file. Raises KdbenchError where it is not there or cannot be read."""
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise KdbenchError(f"{path} is a folder in the place of a results file; move it aside") from None
    except FileNotFoundError:
        link = " (it is a link to a file that is not there)" if path.is_symlink() else ""
        raise KdbenchError(f"there is no {path}{link}") from None
    except OSError as error:
        raise KdbenchError(f"cannot read {path} ({error.strerror}); fix it or move it aside") from error


def read(path: Path, data: bytes, columns: Sequence[str]) -> Lines:
    """All lines of a file, whose first one may be the torn one of ``columns``.

    Raises KdbenchError, which names file and line, for what is no table under one header.
    """
    names = header(path, data, columns)
    if not names:
        return Lines([], [], [], 0)
    texts = _texts(path, data)
    torn = len(texts) if data[keep(data, names) :] else 0
    if torn:
        texts.pop()
    rows, at = [], []
    once: dict[str, str] = {}  # equal values share their memory
    for number, fields in _fields(path, texts):
        if number > 1 and fields != names and any(fields):
            checked = _checked(path, number, texts[number - 1], fields, names)
            rows.append([once.setdefault(text, text) for text in checked])
            at.append(number)
    return Lines(*_named(path, names, rows), at, torn)


def header(path: Path, data: bytes, columns: Sequence[str]) -> list[str]:
    """The names in the first line; none in an empty file and where the first writer died within that line.

    Raises KdbenchError where the file is of another kind than CSV with commas.
    """
    if data.startswith(",".join(columns).encode() + b"\n"):
        return list(columns)
    kind = kind_of(data)
    if kind in REMEDIES and not MARKER.match(data[:9].decode("latin-1")):
        raise KdbenchError(f"{path} is no CSV file: {REMEDIES[kind]}")
    if not data.removeprefix(BOM).strip():
        return []
    end = END.search(data)
    (text,) = _texts(path, data[: end.start()] if end else data) or [""]
    if not end and _begins(text, columns):
        return []
    if MARKER.match(text):
        raise _conflict(path, 1)
    ((_, names),) = _fields(path, [text])
    if not names:
        raise KdbenchError(
            f"{path} has another header than kdbench writes: line 1 is empty; delete it, or move it aside or choose "
            "another --results folder"
        )
    if "cell_id" not in names:
        _check_separator(path, text)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice and "cell_id" not in names:
        raise KdbenchError(
            f"{path} is no results file of kdbench (line 1 names no columns; was the header cut off?); restore it or "
            "move it aside"
        )
    if twice:
        raise KdbenchError(f"{path} is damaged (line 1 names {twice[0]} twice); restore it or move it aside")
    return names


def is_plain(data: bytes) -> bool:
    """Whether a file has Unix's line ends and no byte order mark."""
    return BOM not in data and b"\r" not in data


def line_end(data: bytes) -> bytes:
    """How the first line of a file ends; as Unix does where there is none."""
    end = END.search(data)
    return end.group() if end else b"\n"


def first_end(data: bytes) -> int:
    """The end of the first line, its line end included; 0 where that lacks."""
    end = END.search(data)
    return end.end() if end else 0


def last_start(data: bytes) -> int:
    """The start of a last line without its end; the length of the file where there is none."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


def keep(data: bytes, names: Sequence[str]) -> int:
    """How many bytes to keep of a file with that header: all but a torn last line."""
    start = last_start(data)
    tail = data[start:].decode("utf-8", "replace").removeprefix("\ufeff")
    return start if tail and _is_torn(tail, names) else len(data)


def _is_torn(text: str, names: Sequence[str]) -> bool:
    if MARKER.match(text):
        return False
    try:
        (fields,) = csv.reader([text], strict=True)
    except csv.Error as error:
        return "unexpected end" in str(error)  # within quotes
    if len(fields) < len(names):
        return True
    return list(names) == CURVE_COLUMNS and not values.fits(fields[-1], CURVES[-1])  # "1.2e" of "1.2e-05"


def _begins(text: str, columns: Sequence[str]) -> bool:
    whole = ",".join(columns)
    return whole.startswith(text) and text != whole


def _texts(path: Path, data: bytes) -> list[str]:
    """The lines without their ends and without byte order marks; the last one only where it is not empty."""
    if b"\0" in data:
        line = _line(data, data.index(b"\0"))
        raise KdbenchError(
            f"{path} holds zero bytes (line {line}): it is encoded in UTF-16, or a crash of the machine left them; "
            "save it as CSV in UTF-8, or delete them"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason == "unexpected end of data":  # a torn last line
            text = data.decode("utf-8", "replace")
        else:
            raise KdbenchError(
                f"{path} is not encoded in UTF-8 (line {_line(data, error.start)}, byte 0x{data[error.start]:02x}); "
                "restore it, or save it as CSV in UTF-8"
            ) from error
    texts = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    texts = [line.removeprefix("\ufeff") for line in texts]
    return texts if texts[-1] else texts[:-1]


def _line(data: bytes, place: int) -> int:
    return len(END.findall(data[:place])) + 1


def _fields(path: Path, texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(number, values) of each line. Raises KdbenchError where a quote is open at a line's end."""
    reader = csv.reader(texts, strict=True)
    for number in range(1, len(texts) + 1):
        try:
            fields = next(reader)
        except csv.Error as error:
            raise _damaged(path, number, f"has a wrong quote: {error}") from error
        if reader.line_num != number:
            raise _damaged(path, number, "has a quote that is open at its end")
        yield number, fields


def _checked(path: Path, number: int, text: str, fields: list[str], names: Sequence[str]) -> list[str]:
    """The values of a line, one for each name."""
    if MARKER.match(text):
        raise _conflict(path, number)
    if "cell_id" in fields[: len(names)]:  # further on: a row that a header was glued to
        raise KdbenchError(
            f"{path}, line {number}: a header with other columns; files of different versions were joined: give each "
            "file with a --results of its own"
        )
    if len(fields) != len(names):
        cause = (
            "it was cut short"
            if len(fields) < len(names)
            else "a comma in it lacks quotes (a decimal comma?), or two lines were joined"
        )
        raise _damaged(path, number, f"has {len(fields)} values, the header {len(names)}: {cause}")
    return fields


def _named(path: Path, names: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without columns that have neither a name nor a value."""
    unnamed = [place for place, name in enumerate(names) if not name]
    for place in unnamed:
        if any(row[place] for row in rows):
            raise KdbenchError(
                f"{path}: column {place + 1} has values and no name (a data frame's index?); delete it"
            )
    named = [place for place in range(len(names)) if place not in unnamed]
    return (
        ([names[k] for k in named], [[row[k] for k in named] for row in rows]) if unnamed else (names, rows)
    )


def _check_separator(path: Path, text: str) -> None:
    if "cell_id" in [name.strip() for name in text.split(",")]:
        raise KdbenchError(
            f"{path}: the names in line 1 have spaces around them; restore it or save it without them"
        )
    if text.lower().startswith("sep="):
        raise KdbenchError(f"{path}: line 1 is {text!r}, a spreadsheet's note; delete it, and use commas")
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "spaces")):
        if "cell_id" in [part.strip('"') for part in text.split(separator)]:
            raise KdbenchError(
                f"{path}: its values are separated by {name}, not by commas; restore it or save it as CSV with commas"
            )


def _conflict(path: Path, number: int) -> KdbenchError:
    return KdbenchError(
        f"{path}, line {number}: a merge of git left its conflict marker; delete the marker lines and keep the rows of "
        "both sides (`*.csv merge=union` in .gitattributes does so)"
    )


def _damaged(path: Path, number: int, what: str) -> KdbenchError:
    return KdbenchError(f"{path} is damaged (line {number} {what}); restore it or move it aside")
