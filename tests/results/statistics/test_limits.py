"""Gaps, failed runs, what a table could show, and the test set's own error."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions
from statsmodels.stats.power import TTestPower

from kdbench.results.statistics import sampling
from kdbench.results.statistics.incomplete import complete_block, with_failed
from kdbench.results.statistics.power import detects, needed
from tests.support.power import detectable
from tests.support.rule_tables import SD, SIZES, near, seeds


def done(**methods):
    return pd.DataFrame(methods).rename(index=lambda i: f"p{i}").astype(bool)


def test_one_late_method_does_not_cut_the_block():
    table = done(kd=[1] * 13, a=[1] * 13, b=[1] * 13, late=[1] * 7 + [0] * 6)
    block = complete_block(table)
    assert block.methods == ["kd", "a", "b"]  # 39 cells; with the late one 28
    assert len(block.pairs) == 13
    assert complete_block(table, "late").methods == ["kd", "a", "b", "late"]
    assert complete_block(table, "late").pairs == [f"p{i}" for i in range(7)]


def test_of_equal_blocks_that_of_more_methods():
    assert complete_block(done(a=[1, 1], b=[1, 0])) == (["p0"], ["a", "b"])
    assert complete_block(done(a=[0, 0], b=[0, 0])) == ([], [])
    assert complete_block(done(a=[1, 0]), "b") == ([], [])


def test_the_block_is_the_largest_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        table = done(**{f"m{i}": rng.random(5) < 0.6 for i in range(5)})
        sizes = [0]
        for k in range(1, 6):
            for pairs in itertools.combinations(table.index, k):
                sizes.append(k * int(table.loc[list(pairs)].all().sum()))
        block = complete_block(table)
        assert len(block.pairs) * len(block.methods) == max(sizes)
        assert table.loc[block.pairs, block.methods].all(axis=None)


def test_failed_runs_are_shown_both_ways():
    index = pd.MultiIndex.from_product([["p", "q"], [0, 1, 2]], names=["pair", "seed"])
    scores = pd.DataFrame(
        {
            "kd": [70.0, 71, 72, 60, 61, 62],
            "a": [71.0, 72, 73, 61, 62, 63],
            "b": [71.0, 72, np.nan, 61, 5, 6],  # one diverged, two collapsed
        },
        index,
    )
    failed = scores.isna() | (scores < 10)
    found = with_failed(scores, failed, "kd", chance=1.0)
    assert found.loc["a"].to_dict() == {"without": 1.0, "robust": 1.0, "failed": 0, "runs": 6}
    # p: the median of 71, 72, 1 is 71, as kd's; q: that of 61, 1, 1 is 1, 60 below kd's
    assert found.loc["b"].to_dict() == {"without": 1.0, "robust": -30.0, "failed": 3, "runs": 6}


def test_one_failed_run_of_the_baseline_deletes_no_difference():
    index = pd.MultiIndex.from_product([["p", "q"], [0, 1, 2]], names=["pair", "seed"])
    scores = pd.DataFrame({"kd": [np.nan, 71, 72, 60, 61, 62], "a": [71.0, 72, 73, 61, 62, 63]}, index)
    found = with_failed(scores, scores.isna(), "kd")
    assert found.loc["a", ["without", "robust"]].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_of_two_methods_detects_is_statsmodels_paired_power(n):
    expected = detectable(math.sqrt(2), n)
    assert detects(1.0, 2, n) == pytest.approx(expected, rel=1e-4)
    solved = TTestPower().solve_power(nobs=n, alpha=0.025, power=0.8, alternative="larger")
    assert detects(1.0, 2, n) == pytest.approx(math.sqrt(2) * solved, rel=1e-3)


def test_pooling_eight_methods_halves_what_three_seeds_detect():
    assert [detects(SD, 8, n) for n in (3, 5, 10)] == pytest.approx([0.62, 0.46, 0.32], abs=0.005)
    assert detectable(SD * math.sqrt(2), 3) == pytest.approx(1.15, abs=0.005)


def test_seeds_needed_are_the_fewest_that_show_it():
    assert needed(SD, 8) == {0.2: 25, 0.5: 5, 1.0: 2}
    assert detects(SD, 8, 5) <= 0.5 < detects(SD, 8, 4)
    assert needed(10.0, 8)[0.2] is None


def test_no_error_or_one_seed_detects_nothing():
    assert math.isnan(detects(math.nan, 8, 3))
    assert math.isnan(detects(SD, 8, 1))
    assert math.isnan(detects(SD, 1, 3))
    assert needed(math.nan, 8) == {0.2: None, 0.5: None, 1.0: None}
    assert detects(0.0, 8, 3) == 0.0


@pytest.mark.parametrize("tables", SIZES)
def test_what_it_detects_is_found_four_times_in_five(tables):
    size = detects(SD, 8, 3)
    values = seeds(tables, effects=np.array([0.0, size, 0, 0, 0, 0, 0, 0]))
    left = values - values.mean(1, keepdims=True) - values.mean(2, keepdims=True)
    error = ((left + values.mean((1, 2), keepdims=True)) ** 2).sum((1, 2)) / 14
    t = np.diff(values.mean(1)[:, :2])[:, 0] / np.sqrt(2 * error / 3)
    assert (np.abs(t) > distributions.t.ppf(0.975, 14)).mean() == near(0.8, tables)


def test_error_of_an_accuracy_is_binomial():
    assert sampling.accuracy_error(72.0, 10_000) == pytest.approx(0.449, abs=5e-4)
    right = np.random.default_rng(1).random((2000, 400)) < 0.72
    assert 100 * right.mean(1).std() == pytest.approx(sampling.accuracy_error(72.0, 400), rel=0.06)


def test_error_of_a_difference_on_the_same_images():
    assert sampling.difference_error(0.0, 20.0, 10_000) == pytest.approx(0.447, abs=5e-4)
    drawn = np.random.default_rng(2).choice([1, 0, -1], (2000, 400), p=[0.12, 0.8, 0.08])
    expected = sampling.difference_error(4.0, 20.0, 400)
    assert 100 * drawn.mean(1).std() == pytest.approx(expected, rel=0.06)
    assert sampling.difference_error(5.0, 5.0, 10_000) < sampling.difference_error(0.0, 5.0, 10_000)


def calibrated(images, seed):
    """Confidences, and what a perfectly calibrated model gets right, over draws; 15 equal bins."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.5, images)
    right = rng.random((1500, images)) < confidence
    bins = np.minimum((confidence * 15).astype(int), 14)
    n, total = np.bincount(bins, minlength=15), np.bincount(bins, confidence, 15)
    counts = np.stack([right[:, bins == b].sum(1) for b in range(15)], 1)
    return n, total, 100 * np.abs(counts - total).sum(1).mean() / images


@pytest.mark.parametrize("images", [180, 900, 5000])
def test_floor_of_the_calibration_error_is_what_chance_shows(images):
    n, total, simulated = calibrated(images, 3)
    assert sampling.ece_floor(n, total) == pytest.approx(simulated, rel=0.04)


def test_floor_is_0_for_a_sure_model_and_unknown_without_samples():
    assert sampling.ece_floor([0, 10], [0.0, 10.0]) == 0.0
    assert math.isnan(sampling.ece_floor([0, 0], [0.0, 0.0]))
    # one sample of confidence .8 is .2 or .8 away: .8 * .2 + .2 * .8
    assert sampling.ece_floor([1], [0.8]) == pytest.approx(32.0)
