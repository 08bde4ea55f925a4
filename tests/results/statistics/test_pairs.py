"""Differences over pairs: both scopes, exact sign flips against brute force, and error rates of simulated tables."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from kdbench.results.statistics import flips
from kdbench.results.statistics.baseline import against, differences
from kdbench.results.statistics.critical import critical
from kdbench.results.statistics.fit import pooled
from kdbench.results.statistics.pairs import by_teacher, correlation, overlap, pairs_alike, these_pairs
from tests.support.rule_tables import EFFECTS, SD, SIZES, holm, near, pairs, seeds, sign_flip

SAME = [1, 2, 3]
NAMES = ["kd", *"abcdefg"]
TEACHERS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5])  # of 13 pairs


def frame(values):
    return pd.DataFrame(values, [f"p{i}" for i in range(len(values))], NAMES[: values.shape[1]])


def rates(values):
    """Over tables [tables, units, methods]: coverage, and which comparisons survive Dunnett."""
    found = differences(values, pooled(values, np.ones(values[:, 0].shape, bool)), 0, (0, 0))
    half = distributions.t.ppf(0.975, found.df) * found.se
    limits = np.vectorize(lambda df: critical(values.shape[-1] - 1, df))(found.df)
    with np.errstate(invalid="ignore"):
        family = np.abs(found.delta / found.se) > limits
    return (np.abs(found.delta - EFFECTS) <= half)[:, 1:].mean(), family


def test_flips_of_one_method_are_the_sign_flip_test():
    values = np.random.default_rng(0).normal(0.4, 1, 9)
    assert flips.largest_t(pd.DataFrame({"a": values}))["a"] == sign_flip(values)


def step_down(values):
    """By the definition: for each set of methods that is left, the share of patterns with a t as large."""
    k, m = values.shape
    t = np.abs(values.mean(0)) / values.std(0, ddof=1)
    adjusted, left, floor = {}, list(range(m)), 0.0
    while left:
        top = max(left, key=lambda i: t[i])
        patterns = []
        for signs in itertools.product([1, -1], repeat=k):
            flipped = values * np.array(signs)[:, None]
            patterns.append((np.abs(flipped.mean(0)) / flipped.std(0, ddof=1))[left].max())
        floor = max(floor, np.mean(np.array(patterns) >= t[top] - 1e-9))
        adjusted[top] = floor
        left.remove(top)
    return [adjusted[i] for i in range(m)]


def test_several_methods_flip_together_as_by_brute_force():
    values = np.random.default_rng(1).normal([0.2, 0.9, 0.5, 0.0], 1, (7, 4))
    assert flips.largest_t(pd.DataFrame(values)).tolist() == pytest.approx(step_down(values))


def test_flips_lose_nothing_to_many_methods_that_agree():
    same = np.random.default_rng(2).uniform(0.5, 1.5, 6)
    p = flips.largest_t(pd.DataFrame({f"m{i}": same for i in range(44)}))
    assert set(p) == {2 / 64}


def test_fewest_units_that_can_show_anything():
    assert flips.fewest_units() == 6
    assert flips.fewest_units(0.05 / 44) == 11  # what Holm would ask for 44 methods
    certain = pd.DataFrame({"a": [5.0] * 5})
    assert flips.largest_t(certain)["a"] > 0.05


def test_a_method_with_gaps_flips_the_pairs_it_has():
    values = pd.DataFrame({"a": np.arange(1.0, 9.0), "b": [np.nan] * 8, "c": [1.0, 2.0, 1.5, *[np.nan] * 5]})
    p = flips.largest_t(values)
    assert p["a"] == 2 / 256
    assert np.isnan(p["b"])
    assert p["c"] == 2 / 8


def test_many_pairs_are_drawn_and_near_the_normal_law():
    values = np.random.default_rng(3).normal(0.3, 1, 40)
    p = flips.largest_t(pd.DataFrame({"a": values}))["a"]
    assert p == pytest.approx(
        2 * distributions.norm.sf(abs(values.sum()) / np.sqrt((values**2).sum())), abs=0.01
    )
    assert flips.largest_t(pd.DataFrame({"a": np.ones(40)}))["a"] == 1 / 20_000  # never 0


@pytest.mark.parametrize("k", [6, 7, 9])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_limits_are_where_the_sign_flip_test_changes_its_mind(k, level):
    values = np.random.default_rng(k).normal(0.4, 1, k)
    low, high = flips.limits(pd.DataFrame({"a": values}), level).loc["a"]
    for inside, outside in ((low + 1e-6, low - 1e-6), (high - 1e-6, high + 1e-6)):
        assert sign_flip(values - inside) > 1 - level >= sign_flip(values - outside)


def test_limits_of_six_pairs_are_the_smallest_and_the_largest_difference():
    values = pd.DataFrame({"a": [3.0, 1, 2, 5, 4, 9], "b": [1.0, 2, 3, 4, 5, np.nan]})
    found = flips.limits(values)
    assert found.loc["a"].tolist() == [1, 9]
    assert found.loc["b"].isna().all()  # five pairs reject nothing


def test_limits_of_many_pairs_are_near_the_normal_law():
    values = np.random.default_rng(3).normal(0.3, 1, 40)
    half = distributions.norm.ppf(0.975) * np.sqrt((values**2).mean() / 40)
    found = flips.limits(pd.DataFrame({"a": values})).loc["a"]
    assert found.tolist() == pytest.approx([values.mean() - half, values.mean() + half], abs=0.02)


def test_pairs_alike_is_the_method_by_pair_analysis():
    means = frame(pairs(1, 6)[0])
    found = pairs_alike(means, "kd")
    assert found.units == 6
    assert found.pool.df == 5 * 7
    row = found.cells.loc["f"]
    half = distributions.t.ppf(0.975, 35) * found.pool.sd * np.sqrt(2 / 6)
    assert row["high"] - row["delta"] == pytest.approx(half)
    assert row["delta"] == pytest.approx((means["f"] - means["kd"]).mean())
    assert row["decided"] == row["p_family"]


def test_skewed_residuals_leave_the_decision_to_the_flips():
    rng = np.random.default_rng(4)
    means = frame(70 + rng.exponential(1, (8, 8)) ** 3 / 5)
    found = pairs_alike(means, "kd")
    assert found.normal < 0.01
    assert (found.cells["decided"] == found.cells["p_flip"]).all()
    apart = means.drop(columns="kd").sub(means["kd"], axis=0)
    pd.testing.assert_frame_equal(found.cells[["low", "high"]], flips.limits(apart))


@pytest.mark.parametrize("tables", [40, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("k", [6, 8, 13])
def test_intervals_of_skewed_differences_cover_and_never_contradict_their_p(tables, k):
    covered = []
    for seed in range(tables):
        noise = (np.random.default_rng(seed).exponential(size=(k, 8)) ** 2 - 2) / 20
        found = pairs_alike(frame(70 + EFFECTS + noise), "kd")
        if (found.cells["decided"] == found.cells["p_flip"]).all():
            low, high = found.cells["low"], found.cells["high"]
            truth = EFFECTS[1:] - EFFECTS[0]
            covered.append(((low <= truth) & (truth <= high)).mean())
            assert not ((found.cells["decided"] <= 0.05) & (low <= 0) & (high >= 0)).any()
    assert len(covered) > tables / 2
    assert np.mean(covered) > 0.95 - 4 * np.sqrt(0.05 * 0.95 / len(covered))


def test_below_six_units_no_flip_is_given():
    found = pairs_alike(frame(pairs(1, 5)[0]), "kd")
    assert found.cells["p_flip"].isna().all()
    assert found.cells["p_family"].notna().all()


def test_one_pair_says_nothing_of_others():
    found = pairs_alike(frame(pairs(1, 1)[0]), "kd")
    assert found.units == 1
    assert found.cells["delta"].notna().all()
    assert found.cells[["low", "high", "p", "p_family", "decided"]].isna().all(axis=None)


def test_a_method_with_few_pairs_shortens_no_other():
    means = frame(pairs(1, 13)[0])
    more = means.assign(late=means["a"] + 1.0)
    more.loc[more.index[7:], "late"] = np.nan
    found, without = pairs_alike(more, "kd"), pairs_alike(means, "kd")
    assert found.cells["n"].to_dict() == dict.fromkeys("abcdefg", 13) | {"late": 7}
    assert found.cells.loc[list("abcdefg"), "delta"].equals(without.cells["delta"])
    assert found.cells.loc["late", "delta"] == pytest.approx((more["late"] - more["kd"])[:7].mean())
    assert found.pool.df == without.pool.df + 6


def test_the_unit_is_the_teacher_where_pairs_share_one():
    means = frame(pairs(1, 13)[0])
    teachers = pd.Series([f"T{i}" for i in TEACHERS], means.index)
    found = pairs_alike(means, "kd", teachers)
    assert found.units == 6
    apart = means.sub(means["kd"], axis=0).groupby(teachers).mean().mean()
    assert found.cells["delta"].to_dict() == pytest.approx(apart.drop("kd").to_dict())


def test_a_teachers_easy_pair_is_no_credit():
    levels = pd.Series([80.0, 60.0, 70.0, 50.0], list("wxyz"))
    means = pd.DataFrame({"kd": levels, "a": levels + 1, "b": levels + 2})
    means.loc["x", "b"] = np.nan  # b lacks the hard pair of the first teacher
    units = by_teacher(means, pd.Series(["T", "T", "U", "U"], list("wxyz")))
    assert (units["b"] - units["kd"]).tolist() == pytest.approx([2.0, 2.0])


def test_these_pairs_by_hand():
    index = pd.MultiIndex.from_product([["a", "b"], ["p", "q"]])
    cells = pd.DataFrame(
        {"delta": [1.0, 2, 3, 4], "se": [0.3, 0.4, 0.1, np.nan], "df": [8.0, 8, 8, np.nan]}, index
    )
    found = these_pairs(cells)
    # Satterthwaite: (.09 + .16)^2 / (.0081 / 8 + .0256 / 8)
    assert found.loc["a", ["delta", "se", "df", "pairs"]].tolist() == pytest.approx(
        [1.5, 0.25, 14.836, 2], 1e-4
    )
    assert found.loc["b", ["delta", "se", "df", "pairs"]].tolist() == pytest.approx([3.0, 0.1, 8, 1])


def test_runs_in_common_by_hand():
    """ce has the same three runs on p and q, and one of two on r; kd has its own everywhere."""
    cells = {
        ("ce", "p"): "abc",
        ("ce", "q"): "abc",
        ("ce", "r"): "cd",
        ("kd", "p"): "xyz",
        ("kd", "q"): "uvw",
    }
    runs = pd.DataFrame(
        [(*key, cell) for key, own in cells.items() for cell in own], columns=["label", "pair", "cell_id"]
    )
    overlaps = overlap(runs)
    assert list(overlaps) == ["ce"]
    third = 1 / np.sqrt(6)
    assert overlaps["ce"].to_numpy() == pytest.approx(
        np.array([[1, 1, third], [1, 1, third], [third, third, 1]])
    )
    assert correlation(overlaps, "kd", "dkd") is None
    half = correlation(overlaps, "ce", "kd")
    assert half.loc["p", "q"] == pytest.approx(0.5)  # the other half of the variance is kd's
    index = pd.MultiIndex.from_product([["ce"], ["p", "q", "s"]])
    cells = pd.DataFrame({"delta": [1.0, 2, 3], "se": [0.3, 0.4, 0.5], "df": 8.0}, index)
    found = these_pairs(cells, {"ce": half})
    assert found.loc["ce", "se"] == pytest.approx(np.sqrt(0.09 + 0.16 + 0.25 + 2 * 0.5 * 0.3 * 0.4) / 3)
    assert these_pairs(cells).loc["ce", "se"] == pytest.approx(np.sqrt(0.5) / 3)


@pytest.mark.parametrize("tables", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_pairs_that_share_a_student_cover_for_what_they_have_in_common(tables):
    """Six pairs of two students: ce has three runs a student, whose error its mean keeps."""
    students = "aaabbb"
    correlations = {"ce": pd.DataFrame([[(p == q) / 2 for q in students] for p in students])}
    hit = {name: [] for name in ("ce", "dkd", "ce alone")}
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        alone = {student: rng.normal(0, SD, 3) for student in students}
        cells = {}
        for pair, student in enumerate(students):
            scores = pd.DataFrame(rng.normal(0, SD, (3, 3)), columns=["kd", "dkd", "ce"])
            scores["ce"] = alone[student]
            cells[pair] = against(scores, "kd").cells
        cells = pd.concat(cells).swaplevel()
        found, without = these_pairs(cells, correlations), these_pairs(cells)
        for name, row in [
            ("ce", found.loc["ce"]),
            ("dkd", found.loc["dkd"]),
            ("ce alone", without.loc["ce"]),
        ]:
            hit[name].append(row["low"] <= 0 <= row["high"])
    assert np.mean(hit["dkd"]) == near(0.95, tables)
    assert np.mean(hit["ce"]) == near(0.95, tables)
    assert np.mean(hit["ce alone"]) < np.mean(hit["ce"])  # .86 in 1,000 tables


def test_of_one_pair_these_pairs_are_that_pair():
    scores = pd.DataFrame(seeds(1)[0], columns=NAMES)
    cells = against(scores, "kd").cells
    stacked = pd.concat({"p": cells}).swaplevel().drop(columns=["low", "high", "p", "p_family"])
    found = these_pairs(stacked)
    for name in ("delta", "low", "high", "p", "p_family"):
        assert found[name].to_numpy() == pytest.approx(cells[name].to_numpy())


@pytest.mark.parametrize("tables", SIZES)
@pytest.mark.parametrize("k", [2, 3, 6, 13])
def test_over_pairs_dunnett_keeps_its_family_error(tables, k):
    covered, family = rates(pairs(tables, k))
    assert covered == near(0.95, 2 * tables)
    assert family[:, SAME].any(1).mean() == near(0.027, tables)
    power = {2: 0.16, 3: 0.31, 6: 0.72, 13: 0.985}[k]
    assert family[:, 5].mean() == near(power, tables, 5)  # +.5


@pytest.mark.parametrize("tables", SIZES)
def test_shared_teachers_need_the_teacher_as_unit(tables):
    values = pairs(tables, 13, 0.4, teachers=TEACHERS)
    units = np.stack([values[:, t == TEACHERS].mean(1) for t in range(6)], 1)
    _, as_pairs = rates(values)
    covered, as_teachers = rates(units)
    assert as_pairs[:, SAME].any(1).mean() > 0.08
    assert as_teachers[:, SAME].any(1).mean() < 0.04
    assert covered == near(0.95, 2 * tables)
    assert as_teachers[:, 5].mean() > 0.6


@pytest.mark.parametrize("tables", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_flips_keep_their_family_error_and_find_at_six_pairs(tables):
    apart = [pd.DataFrame(table[:, 1:] - table[:, :1]) for table in pairs(tables, 6)]
    p = np.array([flips.largest_t(one).to_numpy() for one in apart])
    assert (p[:, :3] <= 0.05).any(1).mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / tables)
    assert (p[:, 5] <= 0.05).mean() == near(0.77, tables)  # +1.0; Holm's sign flips: never
    alone = np.array([[sign_flip(one[i]) for i in one] for one in apart[:50]])
    assert not (holm(alone[0]) <= 0.05).any()
    assert min(holm(one).min() for one in alone) > 0.05


@pytest.mark.parametrize("tables", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_these_pairs_cover_the_mean_over_exactly_these(tables):
    hit = []
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 0.3, (2, 8)) + EFFECTS
        runs = 70 + truth[:, None] + rng.normal(0, SD, (2, 3, 8))
        cells = {f"p{i}": against(pd.DataFrame(one, columns=NAMES), "kd").cells for i, one in enumerate(runs)}
        found = these_pairs(pd.concat(cells).swaplevel())
        target = (truth - truth[:, :1]).mean(0)[1:]
        hit.append((found["low"].to_numpy() <= target) & (target <= found["high"].to_numpy()))
    assert np.mean(hit) == near(0.95, 2 * tables)
