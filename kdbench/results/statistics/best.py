"""Bold: the methods of one pair that are not shown to be worse than the best (Hsu's comparisons with the best).

One yardstick a pair: a method is bold where its mean is within it of the best mean, so that no bold method is ever
below one that is not. With probability ``level`` the truly best method is bold.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdbench.results.statistics.blocks import NOISY, POOLED, pool
from kdbench.results.statistics.critical import critical
from kdbench.results.statistics.fit import Error

ROUNDING = 1e-9


class Best(NamedTuple):
    """bold: method -> bool. yardstick: how far below the best mean is still bold, in points (NaN: nothing is bold).

    sd, df: the pooled error of one run. states: method -> its state in the pool. reason: why nothing is bold, or ''.
    """

    bold: pd.Series
    yardstick: float
    sd: float
    df: int
    states: pd.Series
    reason: str


def best(
    scores: pd.DataFrame, aside: Collection[str] = (), chance: float | None = 0.0, level: float = 0.95
) -> Best:
    """Who is bold in scores [seed x method] of one pair, higher is better, NaN where there is no run.

    ``chance``: as in blocks.pool. ``aside``: methods with a diverged run. These, and methods with a collapsed run or a
    single one, are never bold and change nobody's yardstick. A far noisier method sets no yardstick and is never the
    best, but is bold where its mean is within reach. With gaps, means are adjusted for the seeds that a method lacks
    (least squares).
    """
    error = pool(scores, aside, chance)
    states = error.methods["state"]
    reason = "" if error.df else "no two methods share two seeds"
    if len(error.of(POOLED)) < 2:
        reason = "fewer than two methods have two sound runs"
    bold, yardstick = within_reach(error.values, error.error, states.isin([POOLED, NOISY]).to_numpy(), level)
    marks = pd.Series(bold & (not reason), states.index)
    return Best(marks, np.nan if reason else float(yardstick), error.sd, error.df, states, reason)


def within_reach(
    values: np.ndarray, error: Error, judged: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """(bold [..., m], yardstick [...]) of tables [..., seeds, methods], among the methods ``judged`` [..., m]."""
    top = np.where(error.kept, error.means, -np.inf).argmax(-1)
    rivals = np.maximum(judged.sum(-1) - 1, 1)
    limit = _limits(rivals, error.fit.df, level)
    yardstick = limit * np.sqrt(error.fit.variance) * _widest(values, error, top)
    highest = np.take_along_axis(error.means, top[..., None], -1)
    return judged & (error.means >= highest - yardstick[..., None] - ROUNDING), yardstick


def _limits(rivals: np.ndarray, df: np.ndarray, level: float) -> np.ndarray:
    """One-sided limits of each table."""
    designs = np.stack([rivals, df], -1).reshape(-1, 2)
    unique, place = np.unique(designs, axis=0, return_inverse=True)
    values = [critical(int(k), float(free), level, sides=1) if free else np.nan for k, free in unique]
    return np.array(values)[place.ravel()].reshape(np.shape(df))


def _widest(values: np.ndarray, error: Error, top: np.ndarray) -> np.ndarray:
    """Standard error of the least certain difference to the best mean, per sd of one run: sqrt(2/n) without gaps."""
    here = (~np.isnan(values) & error.kept[..., None, :]).astype(float)
    n = np.maximum(here.sum(-2), 1)
    share = here / n[..., None, :]
    apart = share - np.take_along_axis(share, top[..., None, None], -1)
    variance = 1 / n + 1 / np.take_along_axis(n, top[..., None], -1)
    variance += np.einsum("...bm,...bc,...cm->...m", apart, error.fit.inverse, apart)
    other = error.kept & (np.arange(n.shape[-1]) != top[..., None])
    return np.sqrt(np.where(other, variance, 0.0).max(-1))
