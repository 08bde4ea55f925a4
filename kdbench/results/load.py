"""The rows of a results folder or file as one data frame."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.suites import Suite, name_of


def load_results(path: str | Path = "results", suite: str | Path | Suite | None = None) -> pd.DataFrame:
    """One row per cell: its last finished run, or its last run where none is finished.

    path: a folder of results or one .csv file. suite: its rows alone; None: those of all suites. The columns are those
    of `results.schema`, accuracies in percent. Raises KdbenchError where there is no such folder, file or suite, and
    for a damaged file.
    """
    if not isinstance(path, str | os.PathLike):
        raise KdbenchError(f"path is one folder of results or one .csv file of it, got {path!r}")
    place = Path(path)
    if not place.exists():
        raise KdbenchError(
            f"there is no {place}; name a folder of results or a .csv file of one (a suite by suite={path!r})"
        )
    files = [place] if place.is_file() else [store.file_of(place, name) for name in store.suites(place)]
    frames = [frame for file in files if len(frame := store.records(store.load(file)))]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=store.COLUMNS)
    if suite is None:
        return rows
    name = name_of(suite)
    if name not in set(rows["suite"]):
        known = ", ".join(sorted(set(rows["suite"]))) or "none"
        raise KdbenchError(f"{place} has no rows of suite {name!r}; it has {known}")
    return rows[rows["suite"] == name].reset_index(drop=True)
