"""Which accuracy a trial's run must have after an epoch to go on: the median rule, on the finished trials alone."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

LEAST = 5  # finished runs that a median is taken of; as in Optuna's MedianPruner


def floors(curves: pd.DataFrame, finished: Collection[str]) -> dict[int, float]:
    """Epoch -> the median top-1, in percent, after it of ``finished`` runs: below it a run of the same seed is stopped.

    curves: rows of a suite's curves, with any terms and runs. Epochs with fewer than LEAST values are left out.
    """
    mine = curves[(curves["term"] == "top1") & curves["cell_id"].isin(list(finished))]
    by_epoch = mine.drop_duplicates(["cell_id", "epoch"], keep="last").groupby("epoch")["value"]
    medians = by_epoch.median()[by_epoch.count() >= LEAST]
    return {int(epoch): float(value) for epoch, value in medians.items()}
