"""Statistics against hand values, brute force and scipy's own tests."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from kdbench.results.statistics import summary
from kdbench.results.statistics.power import detects


def test_summary_uses_n_minus_1():
    assert summary.summary([1.0, 2.0, 4.0, np.nan]) == pytest.approx((7 / 3, math.sqrt(7 / 3), 3))


def test_one_value_has_no_spread_and_no_interval():
    mean, std, n = summary.summary([70.0])
    assert (mean, n) == (70.0, 1)
    assert math.isnan(std)
    assert math.isnan(summary.t_interval([70.0]).low)


def test_interval_is_scipys_paired_t():
    a, b = np.array([72.1, 71.4, 73.0, 72.2]), np.array([71.0, 71.1, 72.5, 70.9])
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert summary.t_interval(a - b)[1:] == pytest.approx((expected.low, expected.high))


def test_interval_excludes_zero_when_the_paired_t_test_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.normal(0.5, 1, 5), rng.normal(0, 1, 5)
        interval = summary.t_interval(a - b)
        assert (scipy_stats.ttest_rel(a, b).pvalue < 0.05) == (interval.low * interval.high > 0)


def test_mean_ranks_share_ties_and_put_divergence_last():
    scores = pd.DataFrame({"a": [70.0, 71.0], "b": [70.0, -np.inf], "c": [69.0, 60.0]})
    assert summary.mean_ranks(scores).to_dict() == {"a": 1.25, "b": 2.25, "c": 2.5}
    with pytest.raises(ValueError, match="every method"):
        summary.mean_ranks(scores.where(scores > 69))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_detectable_difference_is_found_four_times_in_five(n):
    size = detects(2.0 / math.sqrt(2), 2, n)
    runs = np.random.default_rng(3).normal(size, 2.0, (20_000, n))
    found = scipy_stats.ttest_1samp(runs, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.015)


def rows(*runs):
    """(teacher, teacher_id, student, label, seed, top1) -> rows under equal conditions."""
    frame = pd.DataFrame(runs, columns=[*summary.PAIR, "label", "seed", "top1"])
    return frame.assign(dataset="d", split="test", split_id="i", recipe_id="r")


def test_pairing_needs_equal_teacher_student_split_and_seed():
    runs = rows(
        ("T", "1", "S", "kd", 0, 70.0),
        ("T", "1", "S", "dkd", 0, 71.5),
        ("T", "1", "S", "dkd", 1, 80.0),  # another seed
        ("T", "2", "S", "dkd", 0, 80.0),  # other weights
        ("T", "1", "Z", "dkd", 0, 80.0),  # another student
    )
    other = runs.tail(1).assign(student="S", split="holdout")
    differences = summary.paired(summary.wide(pd.concat([runs, other])), "kd")["dkd"].dropna()
    assert differences.tolist() == [1.5]
    assert differences.index[0] == ("d", "test", "i", "r", "T", "1", "S", 0)


def test_rows_without_a_teacher_join_pairs_of_their_student():
    runs = rows(
        ("T", "1", "S", "kd", 0, 70.0),
        ("U", "2", "S", "kd", 0, 72.0),
        ("U", "2", "Z", "kd", 0, 60.0),
        ("", "", "S", "ce", 0, 69.0),
        ("", "", "alone", "ce", 0, 50.0),
    )
    joined = summary.join_pairs(runs)
    assert len(joined) == 6  # ce on S stands twice, ce on alone stays
    differences = summary.paired(summary.wide(joined), "kd")["ce"].dropna()
    assert sorted(differences) == [-3.0, -1.0]


def test_cost_is_compared_on_one_device_only():
    index = pd.MultiIndex.from_product([["A", "B"], [0, 1]], names=["pair", "seed"])
    cost = pd.DataFrame({"kd": [10.0, 10.0, 10.0, np.nan], "dkd": [20.0, 30.0, 15.0, 15.0]}, index)
    device = pd.DataFrame({"kd": ["gpu"] * 4, "dkd": ["gpu", "cpu", "cpu", "gpu"]}, index)
    ratio = summary.cost_ratio(cost, device, unknown(cost), "kd").ratio["dkd"]
    assert ratio["A"] == 2.0  # seed 1 ran elsewhere
    assert math.isnan(ratio["B"])


def test_a_suspended_machine_does_not_make_a_method_dear():
    index = pd.MultiIndex.from_product([["A"], [0, 1, 2]], names=["pair", "seed"])
    cost = pd.DataFrame({"kd": [10.0, 10.0, 20.0], "dkd": [11.0, 5000.0, 24.0]}, index)
    device = pd.DataFrame("cpu", index, ["kd", "dkd"])
    costs = summary.cost_ratio(cost, device, unknown(cost), "kd")
    assert costs.ratio.loc["A"].tolist() == [1.0, 1.2]
    assert not costs.apart.any(axis=None)


def test_cost_is_that_of_one_cohort_where_there_is_one():
    index = pd.MultiIndex.from_product([["A"], [0, 1, 2]], names=["pair", "seed"])
    cost = pd.DataFrame({"kd": [10.0] * 3, "dkd": [11.0, 30.0, 30.0], "late": [15.0] * 3}, index)
    machine = pd.DataFrame("cpu", index, cost.columns)
    cohort = pd.DataFrame({"kd": ["a", "b", "c"], "dkd": ["a", "x", "y"], "late": ["z"] * 3}, index)
    costs = summary.cost_ratio(cost, machine, cohort, "kd")
    assert costs.ratio.loc["A"].to_dict() == {"kd": 1.0, "dkd": 1.1, "late": 1.5}
    assert costs.apart.loc["A"].to_dict() == {"kd": False, "dkd": False, "late": True}


def unknown(cost):
    """Rows that do not say with which others they were trained."""
    return pd.DataFrame(np.nan, cost.index, cost.columns)
