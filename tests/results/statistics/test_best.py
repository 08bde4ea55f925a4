"""Bold: by hand, at the edges, and its error rates over simulated tables."""

import numpy as np
import pandas as pd
import pytest

from kdbench.results.statistics.best import best, within_reach
from kdbench.results.statistics.critical import critical
from kdbench.results.statistics.fit import pooled
from tests.support.rule_tables import SD, SIZES, near, seeds


def table(**methods):
    return pd.DataFrame(methods, dtype=float)


def bold(scores, **options):
    found = best(scores, **options)
    return set(found.bold.index[found.bold])


def test_yardstick_by_hand():
    scores = table(a=[70.0, 71.0, 72.0], b=[71.1, 71.9, 73.0], c=[60.0, 61.2, 61.8])
    # residual sum of squares of the two-way table: 0.0844..., on (3 - 1)(3 - 1) = 4 degrees of freedom
    centred = scores - scores.mean()
    error = float((centred.sub(centred.mean(axis=1), axis=0) ** 2).to_numpy().sum()) / 4
    found = best(scores)
    assert found.yardstick == pytest.approx(critical(2, 4, sides=1) * np.sqrt(2 * error / 3))
    assert bold(scores) == {"b"}
    assert bold(scores.assign(a=scores["b"] - 0.99 * found.yardstick)) == {"a", "b"}


def test_a_collapsed_seed_is_never_bold_and_widens_nothing():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(70 + rng.normal(0, 0.2, (3, 5)), columns=list("abcde"))
    broken = scores.assign(z=[74.0, 73.0, 10.0])
    assert best(broken).yardstick == best(scores).yardstick
    assert best(broken).states["z"] == "collapsed"
    assert bold(broken) == bold(scores)
    alone = scores.assign(z=[90.0, 91.0, 30.0])  # the best mean of all: still not bold
    assert alone["z"].mean() > 70
    assert bold(alone) == bold(scores)


def test_a_method_with_a_diverged_seed_is_never_bold():
    scores = table(a=[70.0, 70.2, 70.1], b=[70.1, 70.0, 70.3], z=[75.0, 75.1, np.nan])
    assert "z" in bold(scores)
    assert bold(scores, aside=["z"]) == {"a", "b"}


def test_a_noisy_method_is_bold_only_within_reach():
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(70 + rng.normal(0, 0.1, (5, 6)), columns=list("abcdef"))
    wild = np.array([9.0, -9.0, 4.0, -4.0, 0.0])
    assert best(scores.assign(z=75 + wild)).states["z"] == "noisy"
    assert bold(scores.assign(z=75 + wild)) == {"z"} | bold(scores)  # highest, and no one's yardstick
    assert bold(scores.assign(z=68 + wild)) == bold(scores)


@pytest.mark.parametrize(
    "scores",
    [
        table(a=[70.0], b=[71.0], c=[72.0]),
        table(a=[70.0, 71.0]),
        table(a=[70.0, 71.0, np.nan], b=[np.nan, np.nan, 72.0]),
        table(a=[np.nan, np.nan], b=[np.nan, np.nan]),
        table(a=[70.0, 71.0], b=[10.0, 71.0]),  # of two methods one has collapsed
    ],
)
def test_nothing_is_bold_where_nothing_can_be_compared(scores):
    found = best(scores)
    assert not found.bold.any()
    assert np.isnan(found.yardstick)
    assert found.reason


def test_two_methods_are_compared_by_the_one_sided_paired_t():
    scores = table(a=[70.0, 71.0, 72.0], b=[70.5, 71.9, 72.4])
    gap = scores["b"] - scores["a"]
    assert best(scores).yardstick == pytest.approx(critical(1, 2, sides=1) * gap.std() / np.sqrt(3))


def test_without_spread_only_ties_with_the_best_are_bold():
    scores = table(a=[95.1, 95.3], b=[95.1, 95.3], c=[95.0, 95.2])
    assert best(scores).yardstick == 0
    assert bold(scores) == {"a", "b"}
    assert bold(table(a=[95.0, 95.0], b=[95.0, 95.0])) == {"a", "b"}


def test_a_missing_seed_is_no_advantage():
    shift = np.array([0.0, 0.0, -3.0])  # a seed that is hard for all
    rng = np.random.default_rng(2)
    scores = pd.DataFrame(70 + shift[:, None] + rng.normal(0, 0.05, (3, 4)), columns=list("abcd"))
    scores.loc[2, "d"] = np.nan
    scores["d"] -= 0.5
    assert scores["d"].mean() > scores[["a", "b", "c"]].mean().max()  # by the means as they are
    assert "d" not in bold(scores)
    assert best(scores).states["d"] == "pooled"


@pytest.mark.parametrize("tables", SIZES)
def test_the_best_is_bold_and_what_is_far_below_is_not(tables):
    effects = np.random.default_rng(4).normal(0, 0.5, (tables, 1, 8))
    values = seeds(tables, effects=np.broadcast_to(effects, (tables, 3, 8)))
    error = pooled(values, np.ones((tables, 8), bool))
    marked, _ = within_reach(values, error, error.kept | error.noisy)
    below = effects[:, 0].max(1, keepdims=True) - effects[:, 0]
    far = below >= 1
    assert marked[below == 0].mean() == near(0.998, tables)
    assert marked[far].mean() == near(0.002, far.sum(), 5)
    means = values.mean(1)
    lowest = np.where(marked, means, np.inf).min(1)
    highest = np.where(marked, -np.inf, means).max(1)
    assert (lowest > highest).all()  # no bold method below one that is not


@pytest.mark.parametrize("tables", SIZES)
def test_each_of_equal_methods_is_bold_as_often_as_promised(tables):
    values = seeds(tables, effects=np.zeros(8))
    error = pooled(values, np.ones((tables, 8), bool))
    marked, _ = within_reach(values, error, error.kept | error.noisy)
    assert marked[:, 0].mean() == near(0.95, tables)


@pytest.mark.parametrize("tables", SIZES)
def test_one_noisy_method_costs_the_others_little(tables):
    effects = np.array([0.0, -0.3, -1.2, -1.2, -1.2, -1.2, -1.2, -2.5])
    values = seeds(tables, 5, effects, sd=SD * np.array([1, 1, 1, 1, 1, 1, 1, 4]))
    error = pooled(values, np.ones((tables, 8), bool))
    marked, _ = within_reach(values, error, error.kept | error.noisy)
    assert error.noisy[:, 7].mean() > 0.75  # marked as noisy
    assert marked[:, 0].mean() >= 0.98
    assert marked[:, 2:7].mean() <= 0.02
