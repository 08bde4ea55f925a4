"""Differences to the baseline over several pairs, in two scopes.

*These pairs*: the mean over exactly these, with the error of the seeds. *Pairs like these*: what to expect on another
pair, with the error from pair to pair (methods x pairs, additive), which is larger. Pairs that share a teacher are not
independent: there the unit is the teacher.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as distributions

from kdbench.results.statistics import flips
from kdbench.results.statistics.baseline import against, with_limits
from kdbench.results.statistics.blocks import POOLED, Pool
from kdbench.results.statistics.fit import additive

NONE: Mapping[Any, pd.DataFrame] = MappingProxyType({})
DOUBTFUL = 0.01  # level at which the residuals are held not to be normal


class Alike(NamedTuple):
    """Comparison of every method with the baseline on shared units.

    cells: index method; delta, se, df, n = shared units, error, p, p_family (Dunnett), p_flip (largest t; NaN below
    flips.fewest_units() units), decided = the one of the two to use, and low, high = the interval that belongs to it.
    units: how many. normal: p of the residuals' normality (Shapiro-Wilk). pool: the error behind them.
    """

    cells: pd.DataFrame
    units: int
    normal: float
    pool: Pool


def these_pairs(
    cells: pd.DataFrame, correlations: Mapping[Any, pd.DataFrame] = NONE, level: float = 0.95
) -> pd.DataFrame:
    """Mean over pairs of each method's differences, the pairs held fixed.

    ``cells``, ``correlations``: as of `mean_over_pairs`. Result: its columns, and low, high, p, p_family.
    """
    return with_limits(mean_over_pairs(cells, correlations), level)


def overlap(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Runs that stand in several pairs, as those without a teacher do where pairs share a student.

    ``runs``: columns label, pair, cell_id. Result: for each label with such runs [pair x pair], the share (0..1) of two
    pairs' runs that both have.
    """
    shared = runs.groupby(["label", "cell_id"])["pair"].transform("nunique") > 1
    found = {}
    for label in runs.loc[shared, "label"].unique():
        own = runs[runs["label"] == label]
        there = pd.crosstab(own["pair"], own["cell_id"]).clip(upper=1)
        counts = np.sqrt(there.sum(axis=1))
        found[str(label)] = there.dot(there.T).div(counts, axis=0).div(counts, axis=1)
    return found


def correlations(
    overlaps: Mapping[str, pd.DataFrame], couples: Mapping[Any, tuple[str, str]]
) -> dict[Any, pd.DataFrame]:
    """`correlation` of each couple of labels, by the couple's key, where there is any."""
    known = {key: correlation(overlaps, *couple) for key, couple in couples.items()} if overlaps else {}
    return {key: matrix for key, matrix in known.items() if matrix is not None}


def correlation(overlaps: Mapping[str, pd.DataFrame], one: str, other: str) -> pd.DataFrame | None:
    """[pair x pair]: how the differences of two labels correlate by runs that pairs share; None where none do.

    Half of a difference's variance is each label's.
    """
    parts = [overlaps[label] for label in (one, other) if label in overlaps]
    return sum(parts[1:], parts[0]) / 2 if parts else None


def mean_over_pairs(cells: pd.DataFrame, correlations: Mapping[Any, pd.DataFrame] = NONE) -> pd.DataFrame:
    """The mean over pairs of differences and its error, the pairs held fixed.

    ``cells``: index (method, pair), columns delta, se, df of baseline.against for each pair. ``correlations``: of a
    method's differences, as of `correlation`. Result: index method; delta, se, df (Satterthwaite), pairs = how many
    have an interval and are in the mean.
    """
    known = cells[cells["se"].notna()]
    methods = known.index.get_level_values(0)
    k = known.groupby(methods, sort=False)["delta"].count()
    squares = known["se"] ** 2
    total = squares.groupby(methods, sort=False).sum()
    common = [
        _in_common(known.loc[key, "se"], correlations[key]) if key in correlations else 0.0
        for key in total.index
    ]
    parts = (squares**2 / known["df"]).groupby(methods, sort=False).sum()
    smallest = known["df"].groupby(methods, sort=False).min()
    mean = known["delta"].groupby(methods, sort=False).mean()
    df = (total**2 / parts.where(parts > 0)).fillna(smallest)  # without spread any number serves
    result = pd.DataFrame({"delta": mean, "se": np.sqrt(total + np.array(common)) / k, "df": df, "pairs": k})
    result = result.reindex(cells.index.get_level_values(0).unique())
    return result.assign(pairs=result["pairs"].fillna(0).astype(int))


def _in_common(se: pd.Series, correlations: pd.DataFrame) -> float:
    """What the pairs' common runs add to the variance of the sum over pairs: se [pair]."""
    matrix = correlations.reindex(index=se.index, columns=se.index, fill_value=0.0).to_numpy(copy=True)
    np.fill_diagonal(matrix, 0.0)
    return float(se.to_numpy() @ matrix @ se.to_numpy())


def with_plain_means(means: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The same ``means`` of ``cells`` (`mean_over_pairs`), and where no pair has an interval the plain mean.

    Adds n: how many pairs are in the mean.
    """
    plain = cells["delta"].groupby(level=0)
    n = means["pairs"].where(means["pairs"] > 0, plain.count())
    return means.assign(delta=means["delta"].fillna(plain.mean()), n=n)


def pairs_alike(
    means: pd.DataFrame,
    baseline: str,
    teachers: pd.Series | None = None,
    aside: Collection[str] = (),
    level: float = 0.95,
) -> Alike:
    """Each method minus ``baseline`` over the pairs that both have; means [pair x method], NaN where none.

    ``teachers``: pair -> teacher; where given, the unit is the teacher. KeyError where the baseline is no column.
    """
    units = means if teachers is None else by_teacher(means, teachers)
    parametric = against(units, baseline, aside, None, level, suspect=(0, 0))
    apart = units.drop(columns=baseline).sub(units[baseline], axis=0)
    p_flip = flips.largest_t(apart).where(parametric.cells["n"] >= flips.fewest_units())
    normal = _normality(parametric.pool)
    exact = normal < DOUBTFUL and p_flip.notna().any()
    decided = p_flip if exact else parametric.cells["p_family"]
    cells = parametric.cells.assign(p_flip=p_flip, decided=decided)
    if exact:
        cells[["low", "high"]] = flips.limits(apart, level)
    return Alike(cells, int(apart.notna().any(axis=1).sum()), normal, parametric.pool)


def by_teacher(means: pd.DataFrame, teachers: pd.Series) -> pd.DataFrame:
    """[pair x method] -> [teacher x method]: means over a teacher's pairs of what the pairs themselves do not explain.

    Each pair's own level, common to all methods, is taken off first, so that a method that lacks one of a teacher's
    pairs is not credited with how easy the others are.
    """
    levels = _pair_levels(means)
    return means.sub(levels, axis=0).groupby(teachers.reindex(means.index).to_numpy()).mean()


def _pair_levels(means: pd.DataFrame) -> pd.Series:
    """Additive least squares of method + pair over all cells -> the pairs' levels."""
    values = means.to_numpy(float)
    kept = (~np.isnan(values)).sum(0) > 0
    return pd.Series(additive(values, kept).blocks, means.index)


def _normality(error: Pool) -> float:
    """Shapiro-Wilk's p of the residuals of the pooled methods; NaN for fewer than 8 or without spread."""
    if not error.sd > 0:
        return np.nan
    kept = (error.methods["state"] == POOLED).to_numpy()
    left = error.values[:, kept] - error.error.fit.blocks[:, None] - error.error.fit.means[kept]
    left = left[~np.isnan(left)]
    return float(distributions.shapiro(left).pvalue) if len(left) >= 8 else np.nan
