"""What a table's test set adds to the error that seeds show, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kdbench.results.statistics.sampling import accuracy_error, ece_floor

BINS = 15  # of the calibration error


def ece_floor_most(top1: float, images: int, bins: int = BINS) -> float:
    """The most that `ece_floor` can be at this accuracy: all images of one confidence, spread evenly over the bins."""
    samples = np.full(bins, max(images // bins, 1))
    return ece_floor(samples, samples * top1 / 100)


def notes(runs: pd.DataFrame) -> list[str]:
    """The note on the finished runs of one table; nothing where their rows lack the number of images."""
    known = runs.dropna(subset=["tested", "top1"])
    if not len(known):
        return []
    top1, images = float(known["top1"].mean()), int(known["tested"].min())
    error, floor = float(accuracy_error(top1, images)), ece_floor_most(top1, images)
    return [
        f"Apart from the seeds, an accuracy of {top1:.0f}% on {images:,} images has a standard error of {error:.2f} "
        f"points (95%: ± {1.96 * error:.2f}) by the choice of these images. All methods share them, so it is smaller "
        f"in a difference. A perfectly calibrated model would still show an ECE of up to {floor:.1f} points on that "
        f"many images ({BINS} bins)."
    ]
