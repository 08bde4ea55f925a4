"""Results files: results/<suite>.csv, one row per attempt, append-only and crash-safe, and the curves beside it.

A record is one physical line. Appending locks the file, removes a torn last line (from a writer that died), completes
one that only lacks its line end, writes once and syncs. Rows are never added to a file with another header; `load`
reads files of earlier versions and other tools, with fewer columns or in another order. Every value is checked on
reading (`values`).
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import lines, values
from kdbench.results.schema import COLUMNS, CURVE_COLUMNS, NEEDED, SCHEMA, TEXT
from kdbench.utils.files import BESIDE_ROWS
from kdbench.utils.status import DONE

__all__ = [
    "COLUMNS", "CURVE_COLUMNS", "NEEDED", "SCHEMA", "TEXT", "append", "check_folder", "check_writable",
    "curves_of", "encode", "file_of", "load", "read", "records", "schema_of", "suites",
    "upgrade_note",
]  # fmt: skip

UNSAFE = re.compile(
    r"[\0\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]"
)  # a zero byte, and all that ends a line somewhere
BLOCK = 1 << 13  # bytes that are read at once at a file's ends; more than a header has

Upgrade = Callable[[pd.DataFrame], pd.DataFrame]
UPGRADES: dict[int, Upgrade] = {  # schema n -> how its rows become those of schema n + 1
    1: lambda rows: rows.assign(schema=2, split_id="", precision=""),  # schema 1 did not say
    2: lambda rows: rows.assign(schema=3, setting="", facts=""),
    3: lambda rows: rows.assign(schema=4, executor="", jobs=float("nan")),
    4: lambda rows: rows.assign(schema=5, timed_steps=float("nan"), cohort_s=float("nan")),
}


class _Foreign(KdbenchError):
    """The columns are those of no version of kdbench."""


def encode(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """Rows as CSV lines: floats by repr, None as empty; line breaks and zero bytes inside a value escaped."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_text(row[key]) for key in columns] for row in rows)
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _text(value: Any) -> Any:
    if value is None or isinstance(value, float):
        return value  # csv writes them so
    return UNSAFE.sub(lambda match: repr(match[0])[1:-1], str(value))


def append(path: Path, rows: Iterable[Mapping[str, Any]], columns: list[str] = COLUMNS) -> None:
    """Add rows to the file at ``path``, created where it does not exist; its line ends stay.

    Raises KdbenchError when the header is another one or the file cannot be written (a full disk, no permission);
    nothing is lost then: the cells' checkpoints stay and the same command writes the rows again.
    """
    text = encode(rows, columns)  # before the file is opened: a row that lacks a column leaves no empty one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as file:
            head, tail, start = _ends(file, columns)
            names = _own_header(path, head, columns)
            kept = tail[: lines.keep(tail, names) if names else 0]
            whole = start + len(kept)
            file.truncate(whole)
            addition = _addition(head if whole else b"", kept, text, columns)
            try:
                if file.write(addition) < len(addition):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise
    except OSError as error:
        raise KdbenchError(
            f"cannot write {path} ({error.strerror or error}); free or fix it and type the same command again: "
            "what is saved is not lost"
        ) from error


def _ends(file: IO[bytes], columns: list[str]) -> tuple[bytes, bytes, int]:
    """The first and the last bytes of a file, and where the last ones start.

    Of a file with today's header they are a block that holds the whole header, and blocks that hold the last line and
    the line end before it: the cost of adding a row does not grow with the file. Of any other file both are all of it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(BLOCK)
    if len(head) < size and head.startswith(",".join(columns).encode() + b"\n"):
        start, tail = size, b""
        while start > 0 and not lines.last_start(tail):
            length = min(BLOCK, start)
            start -= length
            file.seek(start)
            tail = file.read(length) + tail
        return head, tail, start
    content = head + file.read()
    return content, content, 0


def _addition(head: bytes, last: bytes, text: bytes, columns: list[str]) -> bytes:
    """The bytes that add the lines ``text`` to a file by its first and last bytes: a header or a line's end, too."""
    end = lines.line_end(head)
    text = text.replace(b"\n", end)
    if not head:
        return ",".join(columns).encode() + end + text
    return (b"" if lines.last_start(last) == len(last) else end) + text


def locked(path: Path) -> IO[bytes]:
    """The file, open to append and locked; the one that is there now, should `upgrade` have replaced it meanwhile."""
    while True:
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 (the caller closes it)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
        file.close()


def check_writable(path: Path) -> None:
    """Refuse, before training, a ``path`` where rows cannot be added or files beside it cannot be created."""
    for place in (path, path.parent):
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            raise KdbenchError(
                f"cannot write {place} (Permission denied); fix it or choose another --results folder"
            )


def check_folder(results: Path) -> None:
    """Raise KdbenchError where ``results`` is a file or named like one."""
    if not results.is_dir() and (results.exists() or results.suffix.lower() == ".csv"):
        raise KdbenchError(
            f"--results takes a folder here, and {results} is a file or named like one; name the folder "
            f"(one file alone: `kdbench report --results {results}`)"
        )


def _own_header(path: Path, content: bytes, columns: list[str]) -> list[str]:
    """The names in the first line, which are ``columns``, or none in an empty file. Raises KdbenchError otherwise."""
    names = lines.header(path, content, columns)
    if names in ([], columns):
        return names
    if columns == COLUMNS and _is_known(path, content):
        raise KdbenchError(f"rows cannot be added to {path}: {upgrade_note(path, content)}")
    unknown = sorted(set(names) - set(columns))
    surplus = [name or "the column without a name" for name in unknown[:5]]
    remedy = f"delete {', '.join(surplus)}, " if unknown and set(columns) < set(names) else ""
    raise KdbenchError(
        f"{path} has another header than this version of kdbench writes (schema {SCHEMA}); {remedy}"
        "move it aside or choose another --results folder"
    )


def check_header(path: Path, columns: list[str]) -> None:
    """Raise KdbenchError where rows with these columns cannot be added to a file; one that is absent takes any."""
    if path.exists():
        with path.open("rb") as file:
            _own_header(path, file.read(BLOCK), columns)


def _is_known(path: Path, content: bytes) -> bool:
    """Whether the columns are those of some version of kdbench. Raises KdbenchError where the file is damaged."""
    try:
        _loaded(path, content)
    except _Foreign:
        return False
    return True


def upgrade_note(path: Path, content: bytes | None = None) -> str:
    """Why a file that `load` reads must be upgraded before rows are added, and by which command; '' where it need not.

    content: the file's bytes, where they are read already.
    """
    if content is None:
        content = lines.content(path) if path.exists() else b""
    table = lines.read(path, content, COLUMNS)
    if table.header in ([], COLUMNS):
        return ""
    schema = schema_of(path, table)
    reason = f"it has schema {schema}" if schema < SCHEMA else "its columns differ"
    return (
        f"{reason}, this kdbench writes schema {SCHEMA}; type `kdbench results upgrade {shlex.quote(str(path))}` "
        "(the numbers stay, a backup is kept)"
    )


def read(path: Path, columns: list[str] = COLUMNS) -> pd.DataFrame:
    """All whole rows of one file (a torn last line is left out); an absent file has none.

    Raises KdbenchError for a foreign header, a row with the wrong number of values, or a wrong value.
    """
    if not path.exists() and not path.is_symlink():
        return pd.DataFrame(columns=columns)
    content = lines.content(path)
    _own_header(path, content, columns)
    table = lines.read(path, content, columns)
    return _known_schema(path, table) if table.header else pd.DataFrame(columns=columns)


def load(path: Path) -> pd.DataFrame:
    """The whole rows of a results file that another version, tool or person may have written, as today's columns.

    Older schemas are upgraded; columns may be in another order, and those that no table needs may lack (their
    values are then empty). A torn last line is left out and named on stderr. Raises KdbenchError for a newer schema,
    for other columns, for a damaged file and for a wrong value.
    """
    if not path.exists() and not path.is_symlink():
        return pd.DataFrame(columns=COLUMNS)
    return _loaded(path, lines.content(path))


def _loaded(path: Path, content: bytes) -> pd.DataFrame:
    table = lines.read(path, content, COLUMNS)
    if not table.header:
        return pd.DataFrame(columns=COLUMNS)
    if table.torn:
        print(f"{path}: line {table.torn}, the last one, is cut short and left out", file=sys.stderr)
    rows = _known_schema(path, table)
    unknown = sorted(set(rows.columns) - set(COLUMNS))
    lacking = [f"no {column}" for column in NEEDED if column not in rows.columns]
    if lacking:
        raise _Foreign(
            f"{path} is no results file of kdbench (columns: {', '.join((unknown + lacking)[:5])}); move it aside or "
            "name another"
        )
    if unknown:
        raise _Foreign(
            f"{path} has columns that kdbench does not know ({', '.join(unknown[:5])}); delete them"
        )
    absent = {column: object for column in TEXT if column not in rows.columns}
    return rows.reindex(columns=COLUMNS).astype(absent)


def schema_of(path: Path, table: lines.Lines) -> int:
    """The schema of all rows of a file; today's where no row says one. Raises KdbenchError where two rows differ."""
    texts = [row[table.header.index("schema")] for row in table.rows] if "schema" in table.header else []
    known = [(int(float(t)), n) for n, t in zip(table.at, texts, strict=False) if values.WHOLE.fullmatch(t)]
    first = known[0][0] if known else SCHEMA
    other = next((pair for pair in known if pair[0] != first), None)
    if other and max(known)[0] <= SCHEMA:
        raise KdbenchError(
            f"{path}, line {other[1]}, column schema: {other[0]} below rows of schema {first}; files of different "
            "versions were joined: give each with a --results of its own"
        )
    return max(known)[0] if known else SCHEMA


def _known_schema(path: Path, table: lines.Lines) -> pd.DataFrame:
    """The checked rows of a file, which are all of one schema, as rows of today's; curves have none and stay."""
    schema = schema_of(path, table)
    if schema > SCHEMA:
        raise KdbenchError(
            f"{path} was written by a newer kdbench (schema {schema}, this one knows {SCHEMA}); update kdbench"
        )
    rows = values.frame(path, table.header, table.rows, table.at)
    while schema < SCHEMA:
        if schema not in UPGRADES:
            raise KdbenchError(f"{path} has schema {schema}, which no kdbench has written; move it aside")
        rows, schema = UPGRADES[schema](rows), schema + 1
    return rows


def suites(results: Path) -> list[str]:
    """The suites that have a file of rows under ``results``."""
    return sorted(_files(results))


def file_of(results: Path, suite: str) -> Path:
    """The file of a suite's rows: <suite>.csv, also where its suffix is in capitals."""
    return _files(results).get(suite, results / f"{suite}.csv")


def curves_of(file: Path) -> Path:
    """The file of the curves beside a file of rows; its suffix may be in capitals as theirs."""
    here = [file.with_name(f"{file.stem}.curves{suffix}") for suffix in (".csv", file.suffix)]
    return next((path for path in here if path.exists()), here[0])


def _files(results: Path) -> dict[str, Path]:
    """Suite -> its file. Curves, trials, hidden files and the lock files of office programs are left out."""
    files = {
        file.stem: file
        for file in sorted(results.iterdir() if results.is_dir() else ())
        if file.suffix.lower() == ".csv"
        and not file.stem.lower().endswith(BESIDE_ROWS)
        and not file.name.startswith((".", "~"))
    }  # of .CSV and .csv the last one counts, the one that kdbench writes
    return files


def records(attempts: pd.DataFrame) -> pd.DataFrame:
    """Attempts -> one record per cell: its last done row, or its last row where none is done.

    The last row is the one that started last, then the one of the highest attempt, then the lowest in the file: a file
    that was merged or sorted by another tool gives the same records. The records are in the order of the file.
    """
    done = attempts["status"].isin(DONE)
    order = attempts.assign(_done=done).reset_index(drop=True)
    order = order.sort_values(["_done", "started_utc", "attempt"], kind="stable", na_position="first")
    return order.drop_duplicates("cell_id", keep="last").drop(columns="_done").sort_index()
