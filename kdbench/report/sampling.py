"""How far a finite set of evaluated images moves an accuracy and a calibration error: beside the spread over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

BINS = 15  # of the calibration error


def standard_error(top1: float, images: int) -> float:
    """Accuracy (percent) on so many independent images -> its standard error, points: the binomial one."""
    return float(np.sqrt(top1 * (100 - top1) / images))


def ece_floor(counts: ArrayLike, confidences: ArrayLike) -> float:
    """Bins' numbers of images, mean confidences (percent) -> the ECE, points, that a calibrated model shows on average.

    In each bin the number of right answers is nearly normal about the sum of confidences, so its mean distance from it
    is sqrt(2 / pi) standard deviations.
    """
    n, p = np.asarray(counts, float), np.asarray(confidences, float) / 100
    return float(100 * np.sqrt(2 / np.pi) * np.sqrt(n * p * (1 - p)).sum() / n.sum())


def ece_floor_most(top1: float, images: int, bins: int = BINS) -> float:
    """The most that `ece_floor` can be at this accuracy: all images of one confidence, spread evenly over the bins."""
    return ece_floor(np.full(bins, images / bins), np.full(bins, top1))


def notes(runs: pd.DataFrame) -> list[str]:
    """What to say of the finished runs of one table; nothing where they do not say how many images were tested."""
    known = runs.dropna(subset=["tested", "top1"])
    if not len(known):
        return []
    top1, images = float(known["top1"].mean()), int(known["tested"].min())
    error = standard_error(top1, images)
    return [
        f"Beside the seeds: an accuracy of {top1:.0f}% on {images:,} images has a standard error of {error:.2f} points "
        f"(95%: ± {1.96 * error:.2f}) by the choice of these images. All methods share them, so it is "
        "smaller in a difference. A perfectly calibrated model would still show an ECE of up to "
        f"{ece_floor_most(top1, images):.1f} "
        f"points on so few ({BINS} bins)."
    ]
