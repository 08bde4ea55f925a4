"""Differences to one method, in one table [blocks x methods]: intervals, p, and p adjusted for all comparisons.

Three errors, the first that applies: *own* (the paired t of this difference alone) where the method or the baseline is
not in the pool or looks noisier than the others; *shrunk* (its own variance, of n - 1 degrees of freedom, averaged with
the pooled one, which counts for 4) where the variances of the table differ; else *block* (pooled over all methods).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats as distributions

from kdbench.results.statistics.blocks import Pool, pool
from kdbench.results.statistics.critical import adjusted_p
from kdbench.results.statistics.fit import Error

KINDS = "", "block", "shrunk", "own"
NONE, BLOCK, SHRUNK, OWN = range(len(KINDS))
PRIOR = 4  # degrees of freedom that the pooled variance counts for beside a method's own
UNEQUAL = 0.05  # level of the test that the variances of a table are the same
# levels at which a method's, and the baseline's, variance is held to be larger; with .07 the interval of a method four
# times as noisy as the others covers in 90 % at three seeds
SUSPECT = (0.07, 0.01)


class Against(NamedTuple):
    """Comparison of every method with the baseline.

    cells: index method (without the baseline); delta, its standard error se, df, n = blocks that both have, error =
    block, shrunk, own or '' (no interval), low, high, p, p_family (Dunnett). pool: the error behind them.
    """

    cells: pd.DataFrame
    pool: Pool


class Differences(NamedTuple):
    """Arrays [..., m]: mean difference, its standard error, df (both NaN: none), shared blocks, index into KINDS."""

    delta: np.ndarray
    se: np.ndarray
    df: np.ndarray
    n: np.ndarray
    kind: np.ndarray


class Record(NamedTuple):
    """Pairs won, tied, lost, and those that have no interval."""

    wins: int
    ties: int
    losses: int
    unknown: int


def against(
    scores: pd.DataFrame,
    baseline: str,
    aside: Collection[str] = (),
    chance: float | None = 0.0,
    level: float = 0.95,
    suspect: tuple[float, float] = SUSPECT,
) -> Against:
    """Each method minus ``baseline`` over the blocks that both have; scores [block x method], NaN where none.

    KeyError where the baseline is no column. ``aside``, ``chance``: as in blocks.pool. ``suspect``: levels at which a
    method, and the baseline, that is still in the pool loses its share in the pooled error; 0: never.
    """
    error = pool(scores, aside, chance)
    return Against(minus(error, baseline, level, suspect), error)


def minus(
    error: Pool, baseline: str, level: float = 0.95, suspect: tuple[float, float] = SUSPECT
) -> pd.DataFrame:
    """The `Against.cells` of a pool's scores. KeyError where the baseline is not in it."""
    methods = error.methods.index
    apart = differences(error.values, error.error, methods.get_loc(baseline), suspect)
    columns = {name: getattr(apart, name) for name in ("delta", "se", "df", "n")}
    cells = pd.DataFrame(columns, methods).assign(error=np.array(KINDS)[apart.kind])
    return with_limits(cells.drop(index=baseline), level)


def differences(
    values: np.ndarray, error: Error, base: int, suspect: tuple[float, float] = SUSPECT
) -> Differences:
    """Every column minus column ``base``, over their shared blocks, with the error that applies to it."""
    apart = values - values[..., [base]]
    n = (~np.isnan(apart)).sum(-2)
    some = np.maximum(n, 1)
    delta = np.nansum(apart, -2) / some
    own = np.nansum((apart - delta[..., None, :]) ** 2, -2) / np.maximum(n - 1, 1) / 2  # of one run
    pooled, df = error.fit.variance[..., None], error.fit.df[..., None]
    kind = np.where(n > 1, _kinds(error, base, suspect), NONE)
    shrunk = (PRIOR * pooled + (n - 1) * own) / (PRIOR + n - 1)
    kinds = [kind == BLOCK, kind == SHRUNK, kind == OWN]
    variance = np.select(kinds, [pooled + 0 * own, shrunk, own], np.nan)
    free = np.select(kinds, [df + 0 * n, PRIOR + n - 1, n - 1], np.nan)
    return Differences(np.where(n > 0, delta, np.nan), np.sqrt(2 * variance / some), free, n, kind)


def margin(cells: pd.DataFrame, level: float = 0.95) -> pd.Series:
    """Half the interval of each row's delta, from its se and df; NaN where they are."""
    return distributions.t.ppf((1 + level) / 2, cells["df"]) * cells["se"]


def with_limits(cells: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Rows with delta, se, df -> the same with low, high, p and p_family; the family is all rows that have an se."""
    half = margin(cells, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (cells["delta"] / cells["se"]).abs()  # 0 / 0, no spread and no difference: no p
    p = pd.Series(2 * distributions.t.sf(t, cells["df"]), cells.index)
    family = adjusted_p(t, max(int(cells["se"].notna().sum()), 1), cells["df"])
    return cells.assign(low=cells["delta"] - half, high=cells["delta"] + half, p=p, p_family=family)


def record(low: ArrayLike, high: ArrayLike) -> Record:
    """One method over pairs, by the limits of its difference on each: a win or a loss where they exclude 0."""
    bottom, top = np.asarray(low, float), np.asarray(high, float)
    unknown = int((np.isnan(bottom) | np.isnan(top)).sum())
    wins, losses = int((bottom > 0).sum()), int((top < 0).sum())
    return Record(wins, len(bottom) - wins - losses - unknown, losses, unknown)


def _kinds(error: Error, base: int, suspect: tuple[float, float]) -> np.ndarray:
    """Index into KINDS [..., m] of the error that each method's difference takes."""
    own = ~error.kept | (error.p_noisy < suspect[0])
    own = own | (~error.kept | (error.p_noisy < suspect[1]))[..., [base]]
    pooled = np.where(error.unequal < UNEQUAL, SHRUNK, BLOCK)[..., None]
    return np.where(own, OWN, pooled)
