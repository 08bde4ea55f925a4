"""The predictions that runs save: results/<suite>.details/<cell_id>.npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def read(
    rows: pd.DataFrame, folders: Sequence[Path], *names: str
) -> Iterator[tuple[dict[str, str | int], list[np.ndarray]]]:
    """(label, pair, seed and cell_id; the arrays of these names) of each run that has them all, sorted.

    Runs whose file is not there, is damaged or lacks an array are left out. A run that serves several pairs is
    read once.
    """
    rows = rows.sort_values(["label", "pair", "seed"])
    several = set(rows["cell_id"][rows["cell_id"].duplicated()])
    shared: dict[str, list[np.ndarray] | None] = {}
    for row in rows[["label", "pair", "seed", "cell_id"]].to_dict("records"):
        cell = str(row["cell_id"])
        arrays = shared[cell] if cell in shared else _load(cell, folders, names)
        if cell in several:
            shared[cell] = arrays
        if arrays is not None:
            yield {str(key): value for key, value in row.items()}, arrays


def _load(cell: str, folders: Sequence[Path], names: Sequence[str]) -> list[np.ndarray] | None:
    for folder in folders:
        try:
            with np.load(folder / f"{cell}.npz") as file:
                return [file[name] for name in names]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            continue
    return None
