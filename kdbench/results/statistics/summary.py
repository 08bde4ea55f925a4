"""Paired comparisons: means, intervals, ranks, costs. Pure functions on numbers and frames.

A row is one training run. Rows are paired when they share the pair (teacher, its weights, student), the data,
the split, the recipe and the seed: same initial student, same batches, so that only the method differs. In a
*wide* frame the index holds what is matched, each column is one method, NaN means no value. Accuracies are in
percent, differences in percentage points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats as distributions

CONDITIONS = ["dataset", "split", "split_id", "recipe_id"]
PAIR = ["teacher", "teacher_id", "student"]
MATCH = [*CONDITIONS, *PAIR, "seed"]


class Summary(NamedTuple):
    """Mean, standard deviation (ddof 1; NaN for n < 2) and number of values."""

    mean: float
    std: float
    n: int


class Interval(NamedTuple):
    """A mean and its confidence limits (NaN for fewer than two values)."""

    mean: float
    low: float
    high: float


def summary(values: ArrayLike) -> Summary:
    """Mean, std and n of the values that are there."""
    data = np.asarray(values, float)
    data = data[~np.isnan(data)]
    mean = data.mean() if len(data) else np.nan
    return Summary(float(mean), float(data.std(ddof=1)) if len(data) > 1 else np.nan, len(data))


def half_width(std, n, level: float = 0.95):
    """Half the t-interval of a mean, from std (ddof 1) and n of its values; NaN where n < 2. Broadcasts."""
    n = np.asarray(n, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return distributions.t.ppf((1 + level) / 2, n - 1) * np.asarray(std, float) / np.sqrt(n)


def t_interval(differences: ArrayLike, level: float = 0.95) -> Interval:
    """Paired t-interval: over seeds of one pair, or over the means of several pairs."""
    mean, std, n = summary(differences)
    half = float(half_width(std, n, level))
    return Interval(mean, mean - half, mean + half)


def join_pairs(rows: pd.DataFrame, same: Sequence[str] = ()) -> pd.DataFrame:
    """Rows without a teacher (plain training) stand once for every pair of their student and conditions.

    ``same``: further columns in which such a row and a pair's rows must be equal. ``teacher`` and ``teacher_id``
    are '' where a row has none; such a row stays as it is where its student is in no pair.
    """
    alone = rows["teacher"] == ""
    pairs = rows.loc[~alone, [*CONDITIONS, *PAIR, *same]].drop_duplicates()
    joined = rows[alone].drop(columns=PAIR[:2]).merge(pairs, "left", [*CONDITIONS, "student", *same])
    joined[PAIR[:2]] = joined[PAIR[:2]].fillna("")
    return pd.concat([rows[~alone], joined], ignore_index=True)


def wide(rows: pd.DataFrame, value: str = "top1", index: Sequence[str] = MATCH) -> pd.DataFrame:
    """Rows -> one line a match, one column a ``label``. Raises ValueError for two rows of one in a match."""
    return rows.pivot(index=list(index), columns="label", values=value)


def paired(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Wide scores -> differences against the column ``baseline``, NaN where either has no value.

    Raises KeyError where the baseline is no column.
    """
    return scores.sub(scores[baseline], axis=0)


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """[pairs x methods], higher is better -> each method's mean rank, 1 = best, ties share theirs.

    The pairs must be common to all methods (ValueError for a NaN); a diverged run is -inf and comes last.
    """
    if scores.isna().to_numpy().any():
        raise ValueError("ranks need pairs that every method has completed")
    return scores.rank(axis=1, ascending=False, method="average").mean()


class Ratios(NamedTuple):
    """[pair x method]: cost as a multiple of the baseline's, and whether no run was timed beside the baseline's."""

    ratio: pd.DataFrame
    apart: pd.DataFrame


def cost_ratio(cost: pd.DataFrame, machine: pd.DataFrame, cohort: pd.DataFrame, baseline: str) -> Ratios:
    """Wide cost (seconds per epoch), machine and cohort -> costs in multiples of the baseline's.

    The last index level is the seed: the ratio is its median over seeds, which a run on a machine that was suspended
    meanwhile does not move. Only runs on the same machine as their paired baseline count, where "machine" is all that
    seconds depend on beside the method: the device, its threads, whether others are trained beside it. Where some were
    trained in one cohort with it, so under the same load, only these count. A cohort that is not known (NaN) is the
    baseline's.
    """
    own = cost.where(machine.eq(machine[baseline], axis=0)).div(cost[baseline], axis=0)
    base = cohort[baseline]
    beside = cohort.eq(base, axis=0) | cohort.isna() | base.isna().to_numpy()[:, None]
    levels = list(range(cost.index.nlevels - 1))
    ratio, within = (r.groupby(level=levels).median() for r in (own, own.where(beside)))
    return Ratios(within.fillna(ratio), within.isna() & ratio.notna())
