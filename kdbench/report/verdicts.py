"""Our numbers and published ones: what is compared with what, and the verdict of the rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdbench.report.tables import ARROW, Table
from kdbench.results.published import Number
from kdbench.results.statistics.blocks import POOLED, pool
from kdbench.results.statistics.reproduced import Noise, seed_noise, verdicts

INPUT = {  # columns of a line that a verdict is made of -> their names in `statistics.reproduced.verdicts`
    "n": "n",
    "mean": "last",
    "fair_best": "best",
    "value": "value",
    "value_std": "std",
    "runs": "runs",
    "judged_by": "rule",
}


class Ours(NamedTuple):
    """Our accuracies, one per run: of the last epoch, and of the best evaluated one (none: not known).

    whole: whether every epoch after the last milestone was evaluated, so that best means best of all.
    """

    last: tuple[float, ...]
    best: tuple[float, ...] = ()
    whole: bool = False

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.last)

    def by(self, rule: str) -> tuple[float, ...]:
        """Return the accuracies by the rule of a published number; by the last epoch where its rule is not known."""
        return self.best if rule == "best" else self.last


class Comparison(NamedTuple):
    """Ours by the rule of the nearest published number, and the difference to it. between: ours lies between two."""

    compared: float
    delta: float
    nearest: Number
    between: bool = False


def compare(ours: Ours, numbers: Sequence[Number]) -> Comparison:
    """Compare with the nearest of several numbers. Those that cannot be judged (`judged`) count only where none can."""
    tried = [_compared(ours, number) for number in numbers]
    known = sorted((c for c in tried if not math.isnan(c.delta)), key=lambda c: abs(c.delta))
    if not known:
        return tried[0]
    fair = [c for c in known if judged(ours, c.nearest)] or known
    signs = {math.copysign(1, c.delta) for c in fair}
    return fair[0]._replace(between=len(signs) == 2)


def judged(ours: Ours, number: Number) -> bool:
    """Whether ours can be compared by the number's rule: a best epoch needs ours to be the best of all."""
    return rule_of(number) != "best" or bool(ours.best and ours.whole)


def rule_of(number: Number) -> str:
    """The number's rule; 'unknown' where it is only probable."""
    return number.rule if number.sure else "unknown"


def _compared(ours: Ours, number: Number) -> Comparison:
    mine = mean(ours.by(number.rule))
    return Comparison(mine, mine - number.value, number)


def mean(values: Sequence[float]) -> float:
    """The mean of the values; NaN for none."""
    return float(np.mean(values)) if len(values) else math.nan


def verdicts_of(lines: pd.DataFrame, noise: Noise) -> pd.DataFrame:
    """compared, delta, se, p_holm and verdict of the lines of one table and metric that need a verdict.

    lines: the columns of INPUT, and ``between``: where ours lies between two published numbers, no difference from
    the nearest is claimed.
    """
    entries = lines[list(INPUT)].rename(columns=INPUT)
    numbers = [name for name in entries if name != "rule"]
    entries[numbers] = entries[numbers].astype(float)
    mine = entries["best"].where(entries["rule"] == "best", entries["last"])
    entries["value"] = entries["value"].mask(lines["between"].astype(bool), mine)
    judged_lines = verdicts(entries, noise)
    return judged_lines.assign(delta=judged_lines["ours"] - lines["value"].astype(float))


def noise_of(table: Table, metric: str) -> Noise:
    """The error of one run of this table, about its entry's mean, of the entries in the pool."""
    runs = table.finished.assign(cell=table.finished["label"] + ARROW + table.finished["pair"])
    scores = table.wide()
    for pair, several in scores.groupby("pair"):
        out = set(several.columns) - set(pool(several, (), table.chance).of(POOLED))
        runs = runs[~((runs["pair"] == pair) & runs["label"].isin(out))]
    return seed_noise(runs.assign(value=runs[metric].astype(float)))
