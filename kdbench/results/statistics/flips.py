"""Exact sign-flip tests of several methods at once: step-down largest t (Westfall and Young).

If a method does as well as the baseline, each of its differences may as well have had the other sign. All methods'
differences of one unit (pair, or teacher) flip together, so that the test keeps what they have in common and pays less
than Holm does for many methods. It assumes symmetry, not normality.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

EXACT = 14  # units up to which all sign patterns are tried
DRAWS = 20_000  # sign patterns that are drawn beyond


def largest_t(differences: pd.DataFrame) -> pd.Series:
    """Two-sided p of each method's mean, adjusted for all of them; differences [unit x method], NaN where none.

    A method with fewer units than others (NaN) can reach less. NaN for a method without a unit.
    """
    here = differences.notna().to_numpy()
    values = differences.fillna(0.0).to_numpy(float)
    scale = np.sqrt((values**2).sum(0))
    scaled = values / np.where(scale > 0, scale, 1.0)  # the t-value rises with the sum of these
    flipped = np.abs(_signs(len(values)) @ scaled)
    seen = np.abs(scaled.sum(0))
    p, floor = np.full(len(seen), np.nan), 0.0
    order = [i for i in np.argsort(-seen, kind="stable") if here[:, i].any()]
    for place, i in enumerate(order):
        largest = flipped[:, order[place:]].max(1)
        floor = max(
            floor, float((largest >= seen[i] - 1e-9).mean())
        )  # sums that differ by rounding are equal
        p[i] = floor
    return pd.Series(p, differences.columns)


def limits(differences: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The interval of each method's mean that the sign flips of this method alone do not reject; columns low, high.

    A difference d is rejected where those minus d are. NaN for a method with fewer than `fewest_units` (1 - level).
    """
    found = {name: _limits(column.dropna().to_numpy(float), level) for name, column in differences.items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=["low", "high"])


def _limits(values: np.ndarray, level: float) -> tuple[float, float]:
    """Patterns count for d where the mean of the flipped values and that of the others lie on two sides of it.

    All of these ranges contain the mean of all values, so the limits are quantiles of their ends.
    """
    if len(values) < fewest_units(1 - level):
        return np.nan, np.nan
    signs = _signs(len(values))
    flipped = signs < 0
    count = flipped.sum(1)
    own = (count > 0) & (count < len(values))  # the pattern that was seen counts for every d
    sums, total = flipped[own] @ values, values.sum()
    ends = np.sort([sums / count[own], (total - sums) / (len(values) - count[own])], axis=0)
    place = math.floor((1 - level) * len(signs) + 1e-9)
    return np.sort(ends[0])[place - 1], np.sort(ends[1])[-place]


def fewest_units(alpha: float = 0.05) -> int:
    """The fewest units with which any such test can reach p <= alpha: 2 of the 2^k sign patterns; 6 for .05."""
    return math.ceil(1 - math.log2(alpha))


def _signs(k: int) -> np.ndarray:
    """Sign patterns [n, k], the one seen first: all with a first sign of +1, or random ones where these are too many.

    The other half mirrors them and adds nothing to a two-sided test.
    """
    if k <= EXACT:
        rest = np.array(list(itertools.product([1.0, -1.0], repeat=max(k - 1, 0))))
        return np.column_stack([np.ones(len(rest)), rest]) if k > 1 else np.ones((1, k))
    drawn = np.random.default_rng(0).choice([1.0, -1.0], (DRAWS - 1, k))
    return np.vstack([np.ones(k), drawn])
