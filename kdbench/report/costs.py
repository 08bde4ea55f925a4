"""Seconds of training in multiples of the baseline's, on each pair and over pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kdbench.report.tables import Table
from kdbench.results.statistics import summary as stats

# multiples of the baseline's seconds: those of which column
COSTS = {"step_cost": "epoch_s", "alone_cost": "alone_s"}
APART = "cost_apart"


def ratios(table: Table, baseline: str) -> dict[str, pd.DataFrame]:
    """Of each of COSTS, the multiple of the baseline's seconds [pair x label]; and whether these were timed apart."""
    machine, cohort = table.wide("machine"), table.wide("beside")
    found = {
        name: stats.cost_ratio(table.wide(seconds), machine, cohort, baseline)
        for name, seconds in COSTS.items()
    }
    apart = pd.concat([costs.apart for costs in found.values()]).groupby(level="pair").any()
    return {name: costs.ratio for name, costs in found.items()} | {APART: apart}


def over_pairs(entries: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """label -> COSTS: the geometric mean of the ratio to the baseline's seconds over the pairs that both have.

    cost_apart: on some pair no run was timed in one cohort with the baseline's.
    """
    here = (entries["n"] > 0).unstack("label")
    shared = here.mul(here[baseline], axis=0)
    means = {APART: entries[APART].groupby(level="label").any()}
    for name in COSTS:
        logs = np.log(entries[name]).unstack("label")
        known = (logs.notna() | ~shared).all()  # a pair that both have and no machine compares: no cost
        means[name] = np.exp(logs.where(shared).mean()).where(known)
    return pd.DataFrame(means)
