"""Results files of several machines and people -> the rows of one suite, each cell once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.results.choice import ALL, Choice
from kdbench.utils.status import DONE, Status

Results = str | Path | Sequence[str | Path]  # folders of results, or .csv files


class Merged(NamedTuple):
    """The rows of one suite.

    attempts: every attempt once; records: one row per cell (see `merge`); curves: those of the records.
    """

    attempts: pd.DataFrame
    records: pd.DataFrame
    curves: pd.DataFrame


def places(results: Results) -> list[Path]:
    """One place or several, each once, whatever links lead to it.

    Raises KdbenchError where one that is named among several is not there.
    """
    paths = [Path(results)] if isinstance(results, str | Path) else [Path(path) for path in results]
    for path in paths:
        if not path.exists() and (len(paths) > 1 or path.suffix.lower() == ".csv"):
            raise KdbenchError(f"there is no {path}; --results takes folders of results and .csv files")
    return list({path.resolve(): path for path in reversed(paths)}.values())[::-1]


def suites(results: Results) -> list[str]:
    """The suites that have rows: a folder's by the names of its files, a file's by its rows."""
    names: set[str] = set()
    for place in places(results):
        names |= set(store.load(place)["suite"] if place.is_file() else store.suites(place))
    return sorted(names)


def merge(suite: str, results: Results, only: Choice = ALL) -> Merged:
    """All rows of a suite that are chosen, merged by cell id.

    Within one place the finished attempt that started last counts (a forced run replaces an older one). Of
    several places' the first one does that is ok: by its start, then by its run_id. So the order in which
    places are named changes nothing, and a run that is in several counts once.
    """
    attempts, records, curves = zip(*(_read(suite, place, only) for place in places(results)), strict=True)
    if len(records) == 1:
        return Merged(attempts[0], records[0], _curves_of(records[0], curves[0]))
    chosen = _first_ok(_stack(records, store.COLUMNS))
    return Merged(
        _by_start(_stack(attempts, store.COLUMNS)).drop_duplicates(
            ["cell_id", "run_id", "attempt", "status"]
        ),
        _by_start(chosen),
        _curves_of(chosen, _stack(curves, store.CURVE_COLUMNS)).drop_duplicates(),
    )


def rows_of(suite: str, place: Path) -> Path:
    """The file of a suite's rows: the place itself, or the one of that name in the folder."""
    return place if place.is_file() else store.file_of(place, suite)


def _read(suite: str, place: Path, only: Choice) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    file = rows_of(suite, place)
    attempts = store.load(file)
    mine = attempts["suite"] == suite
    if place.is_file() or mine.any():  # else the file of a suite was renamed
        attempts = attempts[mine]
    attempts = only.of(attempts)
    curves = store.read(store.curves_of(file), store.CURVE_COLUMNS)
    return attempts, store.records(attempts), curves


def _curves_of(records: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The curves of these runs: not those of a run that a later one replaced, or that died before its row."""
    return curves.merge(records[["cell_id", "run_id"]]) if len(curves) else curves


def _stack(frames: Iterable[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Rows below each other. Empty frames are left out: they would change the columns' types."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


def _by_start(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["started_utc", "run_id", "cell_id"], kind="stable", ignore_index=True)


def _first_ok(records: pd.DataFrame) -> pd.DataFrame:
    """One record per cell: the first ok one, else the first diverged or skipped one, else the first."""
    standing = records["status"].map({**dict.fromkeys(DONE, 1), Status.OK: 0}).fillna(2)
    order = _by_start(records.assign(_standing=standing)).sort_values("_standing", kind="stable")
    return order.drop_duplicates("cell_id").drop(columns="_standing")
