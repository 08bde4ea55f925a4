"""The expected best of n trials: against all draws, by hand, and its band against known truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.results.statistics.budget import band, expected_best


@pytest.mark.parametrize("values", [[7.0], [1.0, 2.0], [3.0, 1.0, 1.0], [5.0, 2.0, 9.0, 4.0]])
def test_it_is_the_mean_over_all_draws(values):
    found = expected_best(np.array(values))
    for n in range(1, len(values) + 1):
        draws = itertools.product(values, repeat=n)
        assert found[n - 1] == pytest.approx(np.mean([max(draw) for draw in draws]))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_it_rises_from_the_mean_to_below_the_best(values):
    found = expected_best(np.array(values))
    assert found[0] == pytest.approx(np.mean(values))
    assert (np.diff(found) >= -1e-9).all()
    assert found[-1] <= max(values) + 1e-9


def test_the_band_covers_the_truth_about_as_often_as_it_says():
    """Uniform accuracies in 0..1: the expected best of n is n / (n + 1)."""
    random, count = np.random.default_rng(1), 24
    truth = np.arange(1, count + 1) / (np.arange(1, count + 1) + 1)
    inside = np.zeros(count)
    for _ in range(200):
        low, high = band(random.uniform(size=count), samples=200)
        inside += (low <= truth) & (truth <= high)
    share = inside / 200
    assert 0.88 < share[0] < 0.99
    assert share[7] > 0.8  # the plug-in estimate of many draws from few trials is below the truth
