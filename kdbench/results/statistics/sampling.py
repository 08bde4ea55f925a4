"""The error of the test set: what another draw of test images would change, and the floor of the calibration error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions


def accuracy_error(accuracy: ArrayLike, images: int) -> np.ndarray:
    """Standard error of an accuracy in percent on ``images`` test images, in points: .45 for 72 % of 10,000."""
    right = np.asarray(accuracy, float) / 100
    return 100 * np.sqrt(right * (1 - right) / images)


def difference_error(difference: ArrayLike, disagreement: ArrayLike, images: int) -> np.ndarray:
    """Standard error of a difference of two accuracies in percent on the same images, in points.

    ``disagreement``: percent of images that just one of the two gets right; at least \\|difference\\|.
    """
    apart, delta = np.asarray(disagreement, float) / 100, np.asarray(difference, float) / 100
    return 100 * np.sqrt(np.maximum(apart - delta**2, 0) / images)


def ece_floor(samples: ArrayLike, confidence: ArrayLike) -> float:
    """The expected calibration error, in points, that a perfectly calibrated model shows by chance.

    ``samples`` [bins], ``confidence`` [bins]: samples in each bin and the sum of their confidences. The mean distance
    of a binomial count from its mean, each bin's samples taken to have its mean confidence; a slight overestimate.
    """
    n, total = np.asarray(samples, float), np.asarray(confidence, float)
    held = n > 0
    n, p = n[held], np.clip(total[held] / n[held], 0, 1)
    return float(100 * _mean_distance(n, p).sum() / n.sum()) if len(n) else np.nan


def _mean_distance(n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """E|X - np| of a binomial X (de Moivre): 2 m (1 - p) P(X = m) with m = floor(np) + 1."""
    m = np.minimum(np.floor(n * p) + 1, n)
    return 2 * m * (1 - p) * distributions.binom.pmf(m, n, p)
