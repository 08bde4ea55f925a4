"""The error of one table [blocks x methods], pooled over methods: what blocks and methods do not explain.

Blocks are the seeds of one pair, or pairs. A block shifts all methods alike (same initial student, same batches), so
only the rest is error. A method that is far noisier than the others, or has a collapsed run, is left out of the pool,
so that it widens nobody else's interval.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from kdbench.results.statistics.fit import Error, pooled

POOLED, NOISY, COLLAPSED, ASIDE, SHORT = "pooled", "noisy", "collapsed", "aside", "short"


@dataclass(frozen=True)
class Pool:
    """The error of one run, pooled over methods.

    sd, df: of that error (NaN, 0: there is none). unequal: p that the pooled methods' variances are the same
    (Bartlett; NaN: not testable).

    methods: index method; n, mean of its runs; adjusted = mean as if it had run in every block; p_noisy = p that it
    is no noisier than the others; state: pooled; noisy and collapsed (left out); aside (left out by the caller);
    short (fewer than two runs, or none in a block with the others). values [blocks, methods] and error: the same as
    arrays.
    """

    sd: float
    df: int
    unequal: float
    methods: pd.DataFrame
    values: np.ndarray
    error: Error

    def of(self, *states: str) -> list[str]:
        """The methods in any of these states."""
        return list(self.methods.index[self.methods["state"].isin(states)])


def pool(scores: pd.DataFrame, aside: Collection[str] = (), chance: float | None = 0.0) -> Pool:
    """Error of scores [block x method], higher is better. ``chance``: accuracy of guessing; None: look for no collapse.

    ``aside``: methods that are left out of the pool whatever their values, as those with a diverged run.
    """
    values = scores.to_numpy(float)
    out = np.isin(scores.columns, list(aside))
    collapsed = _collapsed(values, chance).any(0) & ~out if chance is not None else np.zeros_like(out)
    eligible = _together(values, ~out & ~collapsed)
    error = pooled(values, eligible)
    state = np.select(
        [out, collapsed, ~eligible, error.noisy], [ASIDE, COLLAPSED, SHORT, NOISY], default=POOLED
    )
    n = (~np.isnan(values)).sum(0)
    columns = {"n": n, "mean": scores.mean(), "adjusted": error.means, "p_noisy": error.p_noisy}
    methods = pd.DataFrame(columns, scores.columns).assign(state=state)
    sd = float(np.sqrt(error.fit.variance))
    return Pool(sd, int(error.fit.df), float(error.unequal), methods, values, error)


def collapsed_runs(scores: pd.DataFrame, chance: float = 0.0) -> pd.DataFrame:
    """Which runs [seed x method] of one pair reach less than half of the way from chance to the median run."""
    return pd.DataFrame(_collapsed(scores.to_numpy(float), chance), scores.index, scores.columns)


def _collapsed(values: np.ndarray, chance: float) -> np.ndarray:
    known = values[~np.isnan(values)]
    return values < (chance + np.median(known)) / 2 if len(known) else np.zeros(values.shape, bool)


def _together(values: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """The eligible methods with two values or more that blocks connect: the largest such group."""
    here = ~np.isnan(values)
    chosen = np.flatnonzero(eligible & (here.sum(0) > 1))
    result = np.zeros(len(eligible), bool)
    if len(chosen):
        meet = here[:, chosen].T.astype(int) @ here[:, chosen]
        _, group = connected_components(meet, directed=False)
        result[chosen[group == np.bincount(group).argmax()]] = True
    return result
