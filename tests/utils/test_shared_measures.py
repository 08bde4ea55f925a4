"""Measures that several rooms share: memory, threads, calibration."""

import numpy as np
import pytest
import torch

from kdbench.utils.calibration import expected_calibration_error
from kdbench.utils.memory import peak_mb
from kdbench.utils.threads import thread_share


def test_peak_memory_counts_what_was_held_before():
    assert peak_mb(torch.device("cpu")) > 50  # torch alone
    ballast = np.ones(2**27)
    size = ballast.nbytes / 2**20
    del ballast
    assert peak_mb(torch.device("cpu")) > size


@pytest.mark.parametrize(("threads", "processes", "each"), [(8, 1, 8), (8, 3, 2), (2, 2, 1), (2, 5, 1)])
def test_threads_are_shared_and_everyone_has_one(threads, processes, each):
    assert thread_share(threads, processes) == each


def test_the_calibration_error_by_hand():
    """Ten samples at 0.9 of which 7 are right, thirty at 0.5 of which 18 are: (10 * 0.2 + 30 * 0.1) / 40."""
    bins = np.zeros((15, 3))
    bins[7], bins[13] = (30, 15, 18), (10, 9, 7)
    assert expected_calibration_error(bins) == pytest.approx(12.5)
