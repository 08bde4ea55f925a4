"""Curves as the page draws them: of each run, and mean and std over the seeds of each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report.figures.curves import TERMS, named, over_seeds
from kdbench.report.leaderboard import Board

POINTS = 60_000  # of all curves of a kind: the page stays a few MB however many runs there are
FEW, MANY = 12, 60  # points of one curve


def of_runs(curves: pd.DataFrame, runs: set[str]) -> dict[str, dict[str, list[list]]]:
    """Cell id -> term -> [epochs, values], thinned to at most MANY points (the first and the last are always there)."""
    rows = curves[curves["term"].isin(list(TERMS)) & curves["cell_id"].isin(runs)].dropna(subset=["value"])
    rows = rows[np.isfinite(rows["value"].astype(float))]
    rows = rows.drop_duplicates(["cell_id", "term", "epoch"], keep="last")
    lines: dict[str, dict[str, list[list]]] = {}
    for (run, term), line in _thinned(rows, ["cell_id", "term"]).groupby(["cell_id", "term"]):
        lines.setdefault(run, {})[term] = [line["epoch"].astype(int).tolist(), _short(line["value"])]
    return lines


def of_methods(board: Board, curves: pd.DataFrame) -> dict[str, Any]:
    """Mean and std over seeds by epoch.

    ``lines``: of each line its pair, label (places in the board), term, the seed of a run that diverged or '', epochs,
    means, stds (NaN as None).
    ``named``: places of the labels that are drawn at first. ``seconds``: [label][pair] of the own steps per epoch.
    """
    labels, pairs = board.labels, board.table.pairs
    data = over_seeds(board.table, curves, labels)
    keys = ["pair", "label", "term", "diverged"]
    lines = [
        [pairs.index(pair), labels.index(label), term, diverged, line["epoch"].astype(int).tolist(),
         _short(line["mean"]), _short(line["std"])]
        for (pair, label, term, diverged), line in _thinned(data, keys).groupby(keys)
    ]  # fmt: skip
    shown = named(data, board.baseline) if len(data) else []
    return {
        "lines": lines,
        "named": [labels.index(label) for label in shown],
        "seconds": _seconds(board),
    }


def _seconds(board: Board) -> list[list[float | None]]:
    means = board.table.finished.groupby(["label", "pair"])["epoch_s"].mean().unstack()
    return [_short(row) for _, row in means.reindex(board.labels, columns=board.table.pairs).iterrows()]


def _thinned(rows: pd.DataFrame, line: Sequence[str]) -> pd.DataFrame:
    """At most MANY epochs of each line, fewer where there are many lines, the first and the last among them."""
    rows = rows.sort_values([*line, "epoch"], kind="stable")
    groups = rows.groupby(list(line))
    most = int(np.clip(POINTS // max(groups.ngroups, 1), FEW, MANY)) - 1
    place, last = groups.cumcount(), groups["epoch"].transform("size") - 1
    step = place * most // last.clip(lower=1)
    return rows[(place == 0) | (step != (place - 1) * most // last.clip(lower=1))]


def _short(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.4g}") for value in values.astype(float)]
