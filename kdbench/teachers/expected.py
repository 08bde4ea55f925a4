"""Decide whether a teacher is weaker than its suite expects. Imports no torch, so that reports can use it."""

from typing import Any

TOLERANCE = 0.05  # percentage points; published accuracies have two digits at most


def falls_short(top1: Any, expected: Any) -> Any:
    """Whether ``top1`` is below ``expected`` (percent) by more than `TOLERANCE`; False where either is NaN.

    Numbers give a bool; pandas or numpy columns give one bool per row.
    """
    return top1 < expected - TOLERANCE
