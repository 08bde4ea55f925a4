"""Differences to the baseline on one pair: by hand, at the edges, and their error rates over simulated tables."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from kdbench.results.statistics import summary
from kdbench.results.statistics.baseline import KINDS, SUSPECT, against, differences, record
from kdbench.results.statistics.critical import critical
from kdbench.results.statistics.fit import pooled
from tests.support.rule_tables import EFFECTS, SD, SIZES, near, seeds

SAME = [1, 2, 3]  # the methods equal to the baseline, of EFFECTS


def table(**methods):
    return pd.DataFrame(methods, dtype=float)


def quiet(n=4, m=5, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(70 + rng.normal(0, 0.2, (n, m)), columns=list("kabcdefgh"[:m]))


def simulate(tables, suspect=SUSPECT, **options):
    """Half-widths of 95 % intervals [tables, methods], the differences and what they are significant by."""
    values = seeds(tables, **options)
    found = differences(values, pooled(values, np.ones(values[:, 0].shape, bool)), 0, suspect)
    half = distributions.t.ppf(0.975, found.df) * found.se
    limits = np.vectorize(lambda df: critical(values.shape[-1] - 1, df))(found.df)
    with np.errstate(invalid="ignore"):  # the baseline minus itself
        family = np.abs(found.delta / found.se) > limits
    return found, half, np.abs(found.delta) > half, family


def test_two_methods_are_a_paired_t_test():
    scores = table(k=[70.0, 75.0, 80.0], a=[71.0, 76.1, 80.9])
    expected = distributions.ttest_rel(scores["a"], scores["k"])
    limits = expected.confidence_interval()
    (row,) = against(scores, "k").cells.itertuples()
    assert (row.delta, row.low, row.high) == pytest.approx((1.0, limits.low, limits.high))
    assert (row.df, row.p, row.error) == (2, pytest.approx(expected.pvalue), "block")
    assert row.p_family == pytest.approx(row.p, abs=1e-5)  # one comparison


def test_the_interval_is_of_the_error_pooled_over_methods():
    scores = quiet()
    found = against(scores, "k")
    assert set(found.cells["error"]) == {"block"}
    half = distributions.t.ppf(0.975, 12) * found.pool.sd * np.sqrt(2 / 4)
    assert (found.cells["high"] - found.cells["delta"]).to_numpy() == pytest.approx([half] * 4)


def test_a_collapsed_method_falls_back_to_its_own_t_alone():
    scores = quiet().assign(z=[70.0, 70.0, 10.0, 70.0])
    found, without = against(scores, "k"), against(quiet(), "k")
    low, high = summary.t_interval(scores["z"] - scores["k"])[1:]
    assert found.cells.loc["z", ["low", "high"]].tolist() == pytest.approx([low, high])
    assert found.cells.loc["z", "error"] == "own"
    same = found.cells.loc[list("abcd"), ["delta", "low", "high"]]
    assert np.allclose(same, without.cells[["delta", "low", "high"]])


def test_a_noisy_baseline_makes_every_difference_its_own():
    scores = quiet(6, 6)
    scores["k"] = 70 + 40 * (scores["k"] - 70)
    found = against(scores, "k")
    assert found.pool.methods.loc["k", "state"] == "noisy"
    assert set(found.cells["error"]) == {"own"}
    assert found.cells.loc["a", "low"] == pytest.approx(summary.t_interval(scores["a"] - scores["k"]).low)


def test_where_variances_differ_each_shrinks_its_own_to_the_pool():
    spread = np.array([0.1, 0.1, 0.15, 0.2, 0.25, 0.15, 0.2, 0.25])
    rng = np.random.default_rng(8)
    scores = pd.DataFrame(70 + spread * rng.normal(size=(9, 8)), columns=list("kabcdefg"))
    found = against(scores, "k")
    assert found.pool.unequal < 0.05
    chosen = found.cells[found.cells["error"] == "shrunk"]
    assert len(chosen) > 3
    for method in chosen.index:
        own = (scores[method] - scores["k"]).var() / 2
        variance = (4 * found.pool.sd**2 + 8 * own) / 12
        assert chosen.loc[method, ["se", "df"]].tolist() == pytest.approx([np.sqrt(2 * variance / 9), 12])


def test_a_difference_uses_the_seeds_that_both_have():
    scores = table(k=[70.0, 71.0, 90.0], a=[71.0, 72.5, np.nan])
    (row,) = against(scores, "k").cells.itertuples()
    assert (row.delta, row.n) == (pytest.approx(1.25), 2)


def test_one_shared_seed_gives_a_difference_and_no_interval():
    scores = table(k=[70.0, 71.0], a=[71.0, np.nan], b=[70.0, 70.5], c=[np.nan, np.nan])
    cells = against(scores, "k").cells
    assert cells.loc["a", ["delta", "n", "error"]].tolist() == [1.0, 1, ""]
    assert cells.loc["a", ["low", "high", "p", "p_family"]].isna().all()
    assert cells.loc["c"].drop(["n", "error"]).isna().all()
    assert cells.loc["b"].notna().all()


def test_one_seed_everywhere_tests_nothing():
    cells = against(table(k=[70.0], a=[71.0], b=[72.0]), "k").cells
    assert cells["delta"].tolist() == [1.0, 2.0]
    assert cells[["se", "low", "high", "p", "p_family"]].isna().all(axis=None)


def test_without_spread_a_difference_is_certain_a_tie_untested():
    scores = table(k=[95.0, 96.0], a=[95.0, 96.0], b=[94.5, 95.5])
    cells = against(scores, "k").cells
    assert cells.loc["b", ["low", "high", "p", "p_family"]].tolist() == [-0.5, -0.5, 0.0, 0.0]
    assert cells.loc["a", ["low", "high"]].tolist() == [0.0, 0.0]
    assert np.isnan(cells.loc["a", "p"])


def test_an_absent_baseline_is_an_error():
    with pytest.raises(KeyError):
        against(quiet(), "crd")


def test_wins_and_losses_are_intervals_that_exclude_0():
    low, high = [0.1, -0.2, -0.5, 0.0, np.nan], [0.5, 0.3, -0.1, 0.4, np.nan]
    assert record(low, high) == (1, 2, 1, 1)


@pytest.mark.parametrize("tables", SIZES)
def test_intervals_cover_and_find_more_than_the_paired_t(tables):
    found, half, beyond, family = simulate(tables)
    covered = np.abs(found.delta - EFFECTS) <= half
    assert covered[:, 1:].mean() == near(0.95, 2 * tables)  # 7 correlated ones
    assert beyond[:, SAME].mean() == near(0.05, 2 * tables)
    assert beyond[:, 5].mean() == near(0.58, tables)  # +.5; the paired t: .30
    assert family[:, SAME].any(1).mean() == near(0.027, tables)
    assert np.median(half[:, 1:]) == pytest.approx(0.43, abs=0.01)
    values = seeds(tables)
    apart = values - values[..., [0]]
    paired = np.median(summary.half_width(apart.std(1, ddof=1), 3)[:, 1:])
    assert paired == pytest.approx(0.73, abs=0.02)


@pytest.mark.parametrize("tables", SIZES)
def test_seeds_that_shift_all_methods_are_taken_out(tables):
    found, half, beyond, _ = simulate(tables, shared=0.5)
    assert (np.abs(found.delta - EFFECTS) <= half)[:, 1:].mean() == near(0.95, 2 * tables)
    assert beyond[:, 5].mean() > 0.8


@pytest.mark.parametrize("tables", SIZES)
def test_one_method_four_times_as_noisy_is_covered(tables):
    found, half, _, _ = simulate(tables, sd=SD * np.array([1, 1, 4, 1, 1, 1, 1, 1]))
    covered = np.abs(found.delta - EFFECTS) <= half
    assert covered[:, 2].mean() == near(0.904, tables)
    own = found.kind[:, 2] == KINDS.index("own")
    assert own.mean() > 0.75
    assert covered[own, 2].mean() > 0.97
    assert covered[:, [1, 3, 4, 5, 6, 7]].mean() >= 0.95


@pytest.mark.parametrize("tables", SIZES)
def test_a_win_or_loss_of_equal_methods_is_rare(tables):
    found, half, _, _ = simulate(tables)
    records = [record(found.delta[:, i] - half[:, i], found.delta[:, i] + half[:, i]) for i in SAME]
    share = sum(r.wins + r.losses for r in records) / (3 * tables)
    assert share == near(0.05, 2 * tables)
