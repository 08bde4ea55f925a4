"""Class by class: what each method reaches on each pair, and every two methods' difference on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdbench.report import predictions
from kdbench.report.leaderboard import Board

MOST = 150_000  # differences in a page's table: it stays a few MB however many methods and classes there are
DIGITS = 1
# label -> seed -> top-1 of each class in percent, NaN where it has no images
Recalls = Mapping[str, Mapping[int, np.ndarray]]


def of_pairs(board: Board, folders: Sequence[Path]) -> dict[str, Any]:
    """Top-1 of each class, from the predictions that runs saved in ``folders``.

    ``labels``: places in the board of the methods that are compared: all that have predictions, or as many of the
    best, and the baseline, as MOST allows; ``said``: that others are left out, or ''. ``pairs``: a dict per pair of
    the board: ``images`` of each class; ``top1`` [label][class], mean over seeds in percent, empty for a label
    without predictions; ``differences`` [i][j - i - 1][class], label i minus label j, mean over the seeds that both
    have, empty where they share none, and ``seeds`` [i][j - i - 1], their number. A class without images has None.
    """
    by_pair = [
        _recalls(rows, folders)
        for pair in board.table.pairs
        for rows in [board.table.finished[board.table.finished["pair"] == pair]]
    ]
    known = {label for recalls, _ in by_pair for label in recalls}
    measured = [label for label in board.labels if label in known]
    shown = _fitting(measured, board.baseline, sum(len(images) for _, images in by_pair))
    said = (
        f"Class by class are the best {len(shown)} of {len(measured)} methods, {board.baseline} among them: more would "
        "make this page too large."
    )
    return {
        "labels": [board.labels.index(label) for label in shown],
        "pairs": [_of_pair(recalls, images, shown) for recalls, images in by_pair],
        "said": said if len(shown) < len(measured) else "",
    }


def _recalls(rows: pd.DataFrame, folders: Sequence[Path]) -> tuple[Recalls, np.ndarray]:
    """The accuracies of the runs of one pair, and the number of images of each class."""
    recalls: dict[str, dict[int, np.ndarray]] = {}
    images = np.zeros(0, int)
    for run, (confusion,) in predictions.read(rows, folders, "confusion"):
        images = confusion.sum(axis=1)
        top1 = np.full(len(images), np.nan)
        np.divide(100.0 * np.diag(confusion), images, out=top1, where=images > 0)
        recalls.setdefault(str(run["label"]), {})[int(run["seed"])] = top1
    return recalls, images


def _fitting(labels: Sequence[str], baseline: str, classes: int) -> list[str]:
    """As many labels, the first ones and the baseline, as have at most MOST differences; classes: of all pairs."""
    most = next((n for n in range(len(labels), 2, -1) if n * (n - 1) // 2 * classes <= MOST), 2)
    if len(labels) <= most:
        return list(labels)
    others = [label for label in labels if label != baseline][: most - (baseline in labels)]
    return [label for label in labels if label in others or label == baseline]


def _of_pair(recalls: Recalls, images: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    seeds = sorted({seed for own in recalls.values() for seed in own})
    nothing = np.full(len(images), np.nan)
    values = np.array([[recalls.get(label, {}).get(seed, nothing) for seed in seeds] for label in labels])
    values = values.reshape(len(labels), len(seeds), len(images))
    top1, runs = _means(values)
    parts = [_means(values[i] - values[i + 1 :]) for i in range(len(labels))]
    return {
        "images": images.tolist(),
        "top1": _rounded(top1, runs),
        "differences": [_rounded(means, shared) for means, shared in parts],
        "seeds": [shared.tolist() for _, shared in parts],
    }


def _means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[label, seed, class] -> the means over seeds [label, class], and the number of seeds of each label."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.where(there, values, 0.0).sum(axis=1) / there.sum(axis=1)
    return means, there.any(axis=2).sum(axis=1)


def _rounded(means: np.ndarray, runs: np.ndarray) -> list[list[float | None]]:
    return [
        [None if np.isnan(value) else round(float(value), DIGITS) + 0.0 for value in row] if n else []
        for row, n in zip(means, runs, strict=True)
    ]
