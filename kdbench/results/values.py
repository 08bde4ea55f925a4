"""Parse and check the texts of a results file, each by its column; a bad one is named with its likely cause."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError, unknown
from kdbench.results.schema import BY_NAME, Column
from kdbench.utils.status import Status

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"\d{1,18}(\.0)?", re.ASCII)  # pandas writes whole numbers beside a gap as 2.0
ID = re.compile(r"[0-9a-f]{12}")
STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?", re.ASCII)
STATUSES = [status.value for status in Status]
SLACK = 1e-6  # sums of rounded shares: a KL of -1e-16, an ECE of 100.00000000000001
GAPS = ("NA", "N/A", "#N/A", "NULL", "null", "None", "NaN", "nan")
GROUPED = re.compile(r"[+-]?\d+([.,' \u00a0\u202f]\d+)+%?|[+-]?[\d.,]+%", re.ASCII)
SPREADSHEET = "restore the file and let the spreadsheet read all columns as text"

Parse = Callable[[str], Any]
Bad = tuple[int, str, str, str]  # line, column, text, reason


def _whole(text: str) -> int:
    if WHOLE.fullmatch(text):
        return int(text.partition(".")[0])
    raise ValueError(f"is no whole number from 0; {_number_cause(text)}")


def _number(text: str) -> float:
    if NUMBER.fullmatch(text) or text.lower() in ("inf", "-inf"):
        return float(text)
    raise ValueError(f"is no number; {_number_cause(text)}")


def _number_cause(text: str) -> str:
    if NUMBER.fullmatch(text):
        return SPREADSHEET if "e" in text.lower() else "correct it or restore the file"
    if GROUPED.fullmatch(text):
        return (
            "decimal commas, digit groups and percent signs come from a spreadsheet of another locale: restore the "
            "file or save it with plain decimal points"
        )
    return "restore the file; if values moved between columns, a comma or a quote was added or lost before this one"


def _id(text: str) -> str:
    if ID.fullmatch(text):
        return text
    if NUMBER.fullmatch(text.replace(",", ".")):
        raise ValueError(f"is no id of 12 hex digits; a spreadsheet read it as a number: {SPREADSHEET}")
    raise ValueError("is no id (12 hex digits in small letters); restore the file")


def _status(text: str) -> str:
    if text in STATUSES:
        return text
    if text.strip().lower() in STATUSES:
        raise ValueError(f"is no status of kdbench; write it as {text.strip().lower()}")
    known = str(unknown("status", text, STATUSES)).partition("; ")[2]
    raise ValueError(f"is no status of kdbench; {known}; correct it or restore the file")


def _truth(text: str) -> bool:
    if text.lower() in ("true", "false"):  # a spreadsheet writes TRUE
        return text.lower() == "true"
    raise ValueError(f"is neither True nor False; a spreadsheet of another language writes so: {SPREADSHEET}")


def _json(text: str) -> str:
    try:
        known = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        known = False
    if known:
        return text
    raise ValueError(
        "is no JSON object; quotes in it were lost or changed: restore the file, and write it with "
        "doubled quotes as CSV asks"
    )


def _time(text: str) -> str:
    """The moment in UTC as kdbench writes it: texts are compared, and other tools write times in other ways."""
    try:
        moment = datetime.fromisoformat(text) if STAMP.fullmatch(text) else None
        if moment:
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"is no timestamp like 2026-01-31T12:00:00+00:00; a spreadsheet wrote it so: {SPREADSHEET}"
    )


KINDS: dict[str, Parse] = {
    "text": str,
    "id": _id,
    "whole": _whole,
    "number": _number,
    "truth": _truth,
    "status": _status,
    "json": _json,
    "time": _time,
}
WITH_GAPS = {"whole": float, "number": float, "truth": object}  # the types of columns; all others are text
WITHOUT_GAPS = {"whole": "int64", "number": float, "truth": bool}


def value(text: str, column: Column) -> Any:
    """Parse a text of ``column``, None for a gap. Raises ValueError with the reason and the remedy."""
    if not text or (column.kind in ("whole", "number") and text.lower() == "nan"):
        if column.filled:
            raise ValueError("is empty, but each row has it; restore the file or delete the row")
        return None
    if column.kind != "text" and text in GAPS:
        raise ValueError("is another tool's word for no value; leave such values empty")
    parsed = KINDS[column.kind](text)
    if column.kind in ("whole", "number") and not column.low - SLACK <= parsed <= column.high + SLACK:
        raise ValueError(f"is outside its range, {_range(column)}; correct it or restore the file")
    return parsed


def fits(text: str, column: Column) -> bool:
    """Whether a text is a value of ``column``."""
    try:
        value(text, column)
    except ValueError:
        return False
    return True


def _range(column: Column) -> str:
    return f"{column.low:g} and more" if column.high == math.inf else f"{column.low:g} to {column.high:g}"


def frame(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], at: Sequence[int]
) -> pd.DataFrame:
    """Rows of texts as a frame under ``header``, which has no name twice; ``at`` are their lines in the file.

    Columns that kdbench does not know become numbers where all are. Raises KdbenchError for the first bad value.
    """
    texts = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    typed, bad = {}, _without_accuracy(texts, at)
    for name, column in texts.items():
        if name in BY_NAME:
            values, reasons = _values(column, BY_NAME[name])
            typed[name] = _series(values, BY_NAME[name])
            if reasons:
                bad += [(n, name, t, reasons[t]) for n, t in zip(at, column, strict=True) if t in reasons]
        else:
            typed[name] = _guessed(column)
    if bad:
        raise _error(path, bad)
    return pd.DataFrame(typed, columns=list(header))


def _error(path: Path, bad: Sequence[Bad]) -> KdbenchError:
    line, name, text, reason = min(bad)
    shown = repr(text if len(text) <= 40 else f"{text[:40]}...") if text else "the value"
    more = f" (the first of {len(bad)} wrong values)" if len(bad) > 1 else ""
    return KdbenchError(f"{path}, line {line}, column {name}: {shown} {reason}{more}")


def _values(texts: Sequence[str], column: Column) -> tuple[list[Any], dict[str, str]]:
    """The values, and for each bad text the reason; each text is looked at once, however often it is there."""
    known: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for text in set(texts):
        try:
            known[text] = value(text, column)
        except ValueError as error:
            known[text], reasons[text] = None, str(error)
    return [known[text] for text in texts], reasons


def _series(values: list[Any], column: Column) -> pd.Series:
    gaps = not values or None in values
    return pd.Series(values, dtype=(WITH_GAPS if gaps else WITHOUT_GAPS).get(column.kind, str))


def _guessed(texts: Sequence[str]) -> pd.Series:
    column = pd.Series(texts, dtype=object)
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column


def _without_accuracy(texts: Mapping[str, Sequence[str]], at: Sequence[int]) -> list[Bad]:
    if not {"status", "top1"} <= texts.keys():
        return []
    reason = "is empty, but a row with status ok has an accuracy; restore the file or delete the row"
    return [
        (line, "top1", top1, reason)
        for line, status, top1 in zip(at, texts["status"], texts["top1"], strict=True)
        if status == Status.OK and top1.lower() in ("", "nan")
    ]
