"""Several methods compared with one: Dunnett's distribution, the largest of k t-values that share a comparison.

The k differences have the same variance and correlate by 1/2 (one shared mean, equal numbers), and one estimate of
the error with df degrees of freedom. The integral over the shared mean and over the error is a sum over nodes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special
from scipy import stats as distributions

NODES = 80


def largest_below(limits: ArrayLike, k: int, df: float, sides: int = 2) -> np.ndarray:
    """P(the largest of k t-values, with ``sides`` = 2 of their absolute values, is at most each limit)."""
    shared, weight = _normal_nodes()
    error, share = _error_nodes(df)
    reach = np.sqrt(2) * np.asarray(limits, float)[..., None, None] * error[:, None]
    inside = special.ndtr(reach + shared)
    if sides == 2:
        inside = inside - special.ndtr(shared - reach)
    return np.einsum("...ij,i,j", inside**k, share, weight)


def adjusted_p(t: ArrayLike, k: int, df: ArrayLike) -> np.ndarray:
    """Two-sided p of each t-value, adjusted for k comparisons with one method; NaN where t or df is."""
    values, dfs = np.broadcast_arrays(np.abs(np.asarray(t, float)), np.asarray(df, float))
    p = np.full(values.shape, np.nan)
    for one in np.unique(dfs[dfs > 0]):
        at = (dfs == one) & ~np.isnan(values)
        p[at] = np.clip(1 - largest_below(values[at], k, float(one)), 0, 1)
    return p


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values; NaN is no test and stays NaN.

    Not by statsmodels, which collects all of the process's garbage at each call: 0.7 s where torch is loaded.
    """
    values = p.to_numpy(float)
    order = np.argsort(values)[: p.count()]
    adjusted = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(values[order] * factors).clip(max=1)
    return pd.Series(adjusted, p.index)


@lru_cache(maxsize=1024)
def critical(k: int, df: float, level: float = 0.95, sides: int = 2) -> float:
    """The limit that the largest of k t-values stays below with probability ``level``."""
    if k == 1:
        return float(distributions.t.ppf(level if sides == 1 else (1 + level) / 2, df))
    top = float(distributions.t.isf((1 - level) / (sides * k), df)) + 1e-6  # Bonferroni's is never smaller
    return float(optimize.brentq(lambda c: float(largest_below(c, k, df, sides)) - level, 0.0, top))


@lru_cache(maxsize=1)
def _normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / weights.sum()


@lru_cache(maxsize=1024)
def _error_nodes(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of estimated over true standard error."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return np.sqrt(distributions.chi2.ppf((nodes + 1) / 2, df) / df), weights / 2
