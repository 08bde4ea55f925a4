"""Accuracy against tuning budget: the expected best of n trials (Dodge et al., EMNLP 2019, arXiv:1909.03004)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def expected_best(accuracies: Floats) -> Floats:
    """The expected highest accuracy of n = 1 .. N trials, [N], for ``accuracies`` [N] of random trials.

    E_n = sum_i v_(i) [(i / N)^n - ((i - 1) / N)^n], v sorted: the plug-in estimate of the paper, trials drawn with
    replacement.

    >>> expected_best(np.array([3.0, 1.0])).tolist()
    [2.0, 2.5]
    """
    ordered, count = np.sort(accuracies), len(accuracies)
    share = np.arange(count + 1) / count
    powers = share ** np.arange(1, count + 1)[:, None]
    return np.diff(powers, axis=1) @ ordered


def band(accuracies: Floats, level: float = 0.95, samples: int = 2000) -> tuple[Floats, Floats]:
    """Lower and upper end, [N] each, of a percentile bootstrap of `expected_best` over the trials."""
    draws = np.random.default_rng(0).integers(len(accuracies), size=(samples, len(accuracies)))
    curves = np.array([expected_best(accuracies[draw]) for draw in draws])
    low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
