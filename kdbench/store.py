"""results/<suite>.csv: one row an attempt, append-only, crash-safe; and the curves beside it.

A record is one physical line. Appending takes a lock, cuts a torn last line (the mark of a writer that died) back to
the last newline, writes once and syncs. A file with another header is refused, never rewritten; for a report, `load`
reads what an earlier version or another tool has left out or ordered otherwise.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError

SCHEMA = 3
IDENTITY = (
    "schema cell_id suite dataset split split_id teacher teacher_id student method method_version params recipe_id seed"
).split()
AIDS = (
    "variant default precision teacher_top1 teacher_expected teacher_cache setting facts test_in_train"
).split()
OUTCOME = (
    "status top1 top5 nll ece agree_teacher kl_teacher train_top1 top1_best epochs_done final_loss tested"
).split()
COST = "train_s teacher_s data_s eval_s cohort_size img_per_s peak_mem_mb student_params extra_params macs".split()
PROVENANCE = (
    "run_id attempt started_utc kdbench git_commit git_dirty code_hash torch timm cuda device threads "
    "deterministic error"
).split()
COLUMNS = IDENTITY + AIDS + OUTCOME + COST + PROVENANCE
CURVE_COLUMNS = "cell_id run_id epoch term value".split()
TEXT = (
    "cell_id suite dataset split split_id teacher teacher_id student method params recipe_id variant precision "
    "teacher_cache setting facts status run_id started_utc kdbench git_commit code_hash torch timm cuda device error"
).split()

NEEDED = [
    *IDENTITY,
    "status",
    "top1",
    "epochs_done",
    "run_id",
    "attempt",
    "started_utc",
]  # the others may lack

Upgrade = Callable[[pd.DataFrame], pd.DataFrame]
UPGRADES: dict[int, Upgrade] = {  # schema n -> what makes its rows those of schema n + 1
    1: lambda rows: rows.assign(schema=2, split_id="", precision=""),  # schema 1 did not say
    2: lambda rows: rows.assign(schema=3, setting="", facts=""),
}

DONE = ("ok", "diverged", "skipped")  # error, oom and interrupted are tried again


def encode(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> bytes:
    """Rows as CSV lines: floats by repr, None as empty, line breaks inside a value as \\n."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    for row in rows:
        writer.writerow({key: _text(row[key]) for key in columns})
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(float(value))
    return str(value).replace("\r", "\\r").replace("\n", "\\n")


def append(path: Path, rows: Iterable[Mapping[str, Any]], columns: list[str] = COLUMNS) -> None:
    """Add rows to the file at ``path``, which is made if it is not there.

    Raises KdbenchError when the header is another one or the file cannot be written (a full disk, no permission);
    nothing is lost then: the cells' checkpoints stay and the same command writes the rows again.
    """
    header = (",".join(columns) + "\n").encode()
    line = encode(rows, columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            _check_header(path, content, header)
            if whole == 0:
                line = header + line
            if whole < len(content):
                file.truncate(whole)
            try:
                if file.write(line) < len(line):
                    raise OSError("the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise
    except OSError as error:
        raise KdbenchError(
            f"cannot write {path} ({error.strerror or error}); free or fix it and type the same command again: "
            "what is saved stays"
        ) from error


def check_writable(path: Path) -> None:
    """Raises KdbenchError when rows could not be added at ``path`` or files made beside it: asked before training."""
    for place in (path, path.parent):
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            raise KdbenchError(
                f"cannot write {place} (Permission denied); fix it or choose another --results folder"
            )


def _check_header(path: Path, content: bytes, header: bytes) -> None:
    first, newline, _ = content.partition(b"\n")
    torn = not newline and header.startswith(first)  # the first writer died in its first line
    if not torn and first + newline != header:
        raise KdbenchError(
            f"{path} has another header than this version of kdbench writes (schema {SCHEMA}); "
            "move it aside or choose another --results folder"
        )


def read(path: Path, columns: list[str] = COLUMNS) -> pd.DataFrame:
    """All whole rows of one file (a torn last line is left out); an absent file has none.

    Raises KdbenchError for a foreign header or a row with the wrong number of values.
    """
    if not path.exists():
        return pd.DataFrame(columns=columns)
    content = path.read_bytes()
    _check_header(path, content, (",".join(columns) + "\n").encode())
    rows = _parse(path, content)
    return _known_schema(path, rows) if len(rows.columns) else pd.DataFrame(columns=columns)


def load(path: Path) -> pd.DataFrame:
    """The whole rows of a results file that another version, tool or person may have written, as today's columns.

    Older schemas are upgraded; columns may stand in another order, and those that no table needs may lack (their
    values are then empty). Raises KdbenchError for a newer schema, for other columns and for a damaged file.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    rows = _known_schema(path, _parse(path, path.read_bytes()))
    found = set(rows.columns)
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    other = sorted(found - set(COLUMNS)) + [f"no {c}" for c in NEEDED if c not in found]
    if other:
        raise KdbenchError(
            f"{path} is no results file of kdbench (columns: {', '.join(other[:5])}); move it aside or name another"
        )
    lacking = {column: object for column in TEXT if column not in found}
    return rows.reindex(columns=COLUMNS).astype(lacking)


def _parse(path: Path, content: bytes) -> pd.DataFrame:
    """The whole lines (a torn last one is left out) as rows, under the file's own header."""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole.strip():
        return pd.DataFrame()
    try:
        header = next(csv.reader([whole.partition(b"\n")[0].decode("utf-8-sig")]))
        text = {column: str for column in TEXT if column in header}
        gaps = {column: [""] if column in text else ["", "nan"] for column in header}
        return pd.read_csv(io.BytesIO(whole), dtype=text, keep_default_na=False, na_values=gaps)
    except (pd.errors.ParserError, ValueError) as error:
        raise KdbenchError(f"{path} is damaged ({error}); restore it or move it aside") from error


def schema_of(path: Path) -> int:
    """The schema of the rows in a results file; today's where it has none."""
    return _schema(_parse(path, path.read_bytes()))


def _schema(rows: pd.DataFrame) -> int:
    numbers = pd.to_numeric(rows.get("schema", pd.Series(dtype=float)), "coerce").dropna()
    return int(numbers.max()) if len(numbers) else SCHEMA


def _known_schema(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a file, which are all of one schema, as rows of today's; curves have none and stay."""
    schema = _schema(rows)
    if schema > SCHEMA:
        raise KdbenchError(
            f"{path} was written by a newer kdbench (schema {schema}, this one knows {SCHEMA}); update kdbench"
        )
    while schema < SCHEMA:
        if schema not in UPGRADES:
            raise KdbenchError(f"{path} has schema {schema}, which no kdbench has written; move it aside")
        rows, schema = UPGRADES[schema](rows), schema + 1
    return rows


def suites(results: Path) -> list[str]:
    """The suites that have rows under ``results``."""
    return sorted(file.stem for file in results.glob("*.csv") if not file.stem.endswith(".curves"))


def records(attempts: pd.DataFrame) -> pd.DataFrame:
    """Attempts -> one record a cell: its last done row, or its last row where none is done."""
    done = attempts["status"].isin(DONE)
    order = attempts.assign(_done=done).reset_index(drop=True)
    order = order.sort_values("_done", kind="stable")  # done rows last, file order kept within
    return order.drop_duplicates("cell_id", keep="last").drop(columns="_done").sort_index()
