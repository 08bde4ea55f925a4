"""Which finished cell is meant: by the beginning of its id, or by method, pair and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.results.choice import Choice
from kdbench.utils.status import Status
from kdbench.utils.text import run_name

Row = dict[str, Any]
SHOWN = 5  # cells that a sentence lists


def choose(
    which: str | Sequence[Any], results: Path, suite: str | None = None, split: str | None = None
) -> Row:
    """The finished record that ``which`` means: the beginning of an id, or method (with its variant), pair and seed.

    suite, split: of it; None: any. Raises KdbenchError where no finished cell or several are meant.
    """
    rows = _rows(results, suite)
    if isinstance(which, str):
        row = _by_id(which, rows, results)
    elif isinstance(which, Sequence) and len(which) == 3:
        row = _by_name(*which, rows=rows, split=split, results=results)
    else:
        raise KdbenchError(f"a cell is the beginning of its id, or (method, pair, seed), got {which!r}")
    if row["status"] != Status.OK:
        raise KdbenchError(f"the cell {row['cell_id']} has no student: its status is {row['status']}")
    return row


def _rows(results: Path, suite: str | None) -> pd.DataFrame:
    names = store.suites(results)
    if suite is not None and suite not in names:
        raise KdbenchError(
            f"no results for suite {suite!r} in {results}; it has {', '.join(names) or 'none'}"
        )
    tables = [
        store.records(store.load(store.file_of(results, name))) for name in ([suite] if suite else names)
    ]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled) if filled else pd.DataFrame(columns=store.COLUMNS)


def _by_id(start: str, rows: pd.DataFrame, results: Path) -> Row:
    matching = rows[rows["cell_id"].astype(str).str.startswith(start)]
    if matching.empty:
        raise KdbenchError(
            f"no cell in {results} has an id that begins with {start!r}; `kdbench status --cells` lists them"
        )
    if len(matching) > 1:
        ids = sorted(matching["cell_id"])
        shown = ", ".join(ids[:SHOWN]) + (" ..." if len(ids) > SHOWN else "")
        raise KdbenchError(f"{start!r} begins {len(ids)} cell ids ({shown}); give more of it")
    return _only(matching)


def _by_name(
    method: str, pair: str, seed: Any, *, rows: pd.DataFrame, split: str | None, results: Path
) -> Row:
    if not str(seed).isdecimal():
        raise KdbenchError(
            f"a seed is a whole number, got {seed!r}; type METHOD PAIR SEED, or the id of a cell"
        )
    chosen = Choice(pairs=[pair], split=split or "").of(rows)
    names = chosen["method"] + (" " + chosen["variant"].fillna("")).str.rstrip()
    matching = chosen[(names == method) & (chosen["seed"].astype(str) == str(seed))]
    what = f"{method}, {pair}, seed {seed}"
    if matching.empty:
        raise KdbenchError(f"no cell in {results} is {what}; `kdbench status --cells` lists them")
    if len(matching) > 1:
        raise KdbenchError(
            f"{len(matching)} cells are {what}; type the id of one: "
            + "; ".join(map(_words, matching.to_dict("records")[:SHOWN]))
        )
    return _only(matching)


def _only(rows: pd.DataFrame) -> Row:
    (row,) = rows.to_dict("records")
    return {str(key): value for key, value in row.items()}


def _words(row: Mapping[Any, Any]) -> str:
    """A cell and what may tell it from another one of the same name."""
    teacher = row["teacher"] if isinstance(row["teacher"], str) else None
    name = run_name(row["method"], teacher, row["student"], row["seed"])
    return f"{row['cell_id']} ({name}, suite {row['suite']}, {row['split']}, {row['epochs_done']:g} epochs)"
