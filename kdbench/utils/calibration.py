"""The expected calibration error; free of torch, so that training and reports share it."""

from __future__ import annotations

import numpy as np

BINS = 15


def expected_calibration_error(bins: np.ndarray) -> float:
    """ECE in percentage points: the bins' |confidence - accuracy|, weighted by their samples.

    bins: [15, 3], one row per bin of the top-1 confidence: samples, sum of confidences, number right.
    """
    return float(100.0 * np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())
