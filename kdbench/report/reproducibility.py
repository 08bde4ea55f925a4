"""Cells that were trained more than once: how far apart their accuracies are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kdbench.report.tables import ARROW
from kdbench.results import store
from kdbench.utils.status import Status

APART = 0.5  # points of top-1 beyond which two runs of one cell are called different
FACTS = ["seed", "status", "top1", "run_id", "started_utc", "device", "torch", "git_commit"]
COLUMNS = ["cell_id", "method", "variant", "pair", *FACTS, "counted", "apart", "differs"]


def frame(attempts: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """One line per finished run of each cell that has several: where, when, and what it reached.

    ``counted``: the one that the tables show. ``apart``: highest less lowest top-1 of the cell's ok runs.
    ``differs``: this is more than APART, or some runs of the cell diverged and others did not.
    """
    runs = attempts[attempts["status"].isin([Status.OK, Status.DIVERGED])]
    runs = runs[runs.duplicated("cell_id", keep=False)].copy()
    text = runs[store.TEXT].fillna("")
    runs[store.TEXT] = text
    runs["pair"] = (text["teacher"] + ARROW + text["student"]).where(text["teacher"] != "", text["student"])
    key = ["cell_id", "run_id", "attempt"]
    runs["counted"] = runs.set_index(key).index.isin(records.set_index(key).index)
    cells = runs.groupby("cell_id")
    apart = cells["top1"].transform("max") - cells["top1"].transform("min")
    runs["apart"] = apart.where(cells["top1"].transform("count") > 1)
    runs["differs"] = (runs["apart"] > APART) | (cells["status"].transform("nunique") > 1)
    order = ["method", "variant", "pair", "seed", "cell_id", "started_utc", "run_id"]
    return runs.sort_values(order, kind="stable", ignore_index=True)[COLUMNS]


def sentence(runs: pd.DataFrame) -> str:
    """How many cells were trained more than once, and how many of them differ; '' where none was."""
    if runs.empty:
        return ""
    cells = runs.drop_duplicates("cell_id")
    count, apart = len(cells), int(cells["differs"].sum())
    trained = "1 cell was" if count == 1 else f"{count} cells were"
    return (
        f"Reproducibility: {trained} trained more than once; {apart} of {count} with top-1 more than {APART:g} point "
        "apart or only some runs diverged. The first ok run counts, within one results folder the last one "
        "(reproducibility.csv lists all)."
    )


def save(runs: pd.DataFrame, path: Path) -> None:
    """All of them as CSV; where no cell was trained twice there is no such file."""
    if runs.empty:
        path.unlink(missing_ok=True)
    else:
        runs.to_csv(path, index=False, lineterminator="\n")


HEADER = ["method", "pair", "seed", "top-1 of each run", "apart", "devices"]


def differing(runs: pd.DataFrame) -> list[Sequence[str]]:
    """The cells that differ, the farthest apart first, as texts under HEADER; the counted run is in [ ]."""
    lines: list[Sequence[str]] = []
    apart_first = runs[runs["differs"]].assign(_far=lambda rows: -rows["apart"].fillna(float("inf")))
    for _, cell in apart_first.sort_values(["_far", "cell_id"], kind="stable").groupby("cell_id", sort=False):
        shown = [
            ("[{}]" if row["counted"] else "{}").format(
                "✗" if row["status"] != Status.OK else f"{row['top1']:.2f}"
            )
            for row in cell.to_dict("records")
        ]
        first, apart = cell.iloc[0], cell["apart"].iloc[0]
        method = f"{first['method']} {first['variant']}".strip()
        devices = ", ".join(sorted(set(cell["device"]) - {""})) or "unknown"
        far = "–" if pd.isna(apart) else f"{apart:.2f}"
        lines.append((method, first["pair"], str(first["seed"]), ", ".join(shown), far, devices))
    return lines
