"""Ours and a published number: agrees, differs or undecided, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from kdbench.report.verdicts import Ours, compare, judged, mean, rule_of, verdicts_of
from kdbench.results.published import Number
from kdbench.results.statistics.reproduced import Noise


def ours(n, mean, std=0.0, best=None, best_std=0.0, whole=True):
    """Runs of exactly this mean and std (ddof 1): half of them below and half above."""
    return Ours(values(n, mean, std), () if best is None else values(n, best, best_std), whole)


def values(n, mean, std):
    signs = np.resize([-1.0, 1.0], n) if n > 1 else np.zeros(1)
    return tuple(mean + signs * std * np.sqrt((n - 1) / n))


def number(value, std=math.nan, count=math.nan, rule="last"):
    return Number(value, std, count, rule, ("X",))


NOISE = Noise(0.2, 12)  # of one run; t(12, .975) = 2.1788, one-sided .95: 1.7823


def judge(*cases, noise=NOISE):
    """Lines as `reproduction` makes them of (our runs, published numbers) -> what is decided."""
    lines = []
    for mine, numbers in cases:
        found = compare(mine, numbers)
        near = found.nearest
        line = {
            "n": mine.n,
            "mean": mean(mine.last),
            "fair_best": mean(mine.best) if mine.whole else math.nan,
        }
        line |= {"value": near.value, "value_std": near.std, "runs": near.runs}
        lines.append(line | {"judged_by": rule_of(near), "between": found.between})
    return verdicts_of(pd.DataFrame(lines), noise)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [  # se of 4 of our runs and 4 of theirs: 0.2 sqrt(1/4 + 1/4) = 0.14142; differs beyond 2.1788 se = 0.3081
        (70.0, "agrees"),  # and agrees below 0.5 - 1.7823 se = 0.2479
        (70.24, "agrees"),
        (70.26, "undecided"),
        (69.70, "undecided"),
        (70.32, "differs"),
        (69.68, "differs"),
    ],
)
def test_agrees_differs_or_undecided_by_hand(value, verdict):
    found = judge((ours(4, 70.0), [number(value, count=4)])).iloc[0]
    assert (found["verdict"], found["se"]) == (verdict, pytest.approx(0.2 * math.sqrt(0.5)))
    assert found["delta"] == pytest.approx(70.0 - value)


def test_their_error_is_theirs_where_it_is_printed():
    printed = judge((ours(4, 70.0), [number(70.4, 0.5, 4)])).iloc[0]
    assert printed["se"] == pytest.approx(math.sqrt(0.2**2 / 4 + 0.5**2 / 4))
    assert printed["verdict"] == "undecided"
    one = judge((ours(4, 70.0), [number(70.4)])).iloc[0]  # of one run, with our noise
    assert one["se"] == pytest.approx(0.2 * math.sqrt(1 / 4 + 1))


def test_a_best_epoch_is_compared_with_our_best_epoch():
    runs = ours(4, 76.0, 0.2, 76.3, 0.4)
    last = judge((runs, [number(76.32, count=4)])).iloc[0]
    best = judge((runs, [number(76.32, count=4, rule="best")])).iloc[0]
    assert (last["verdict"], last["ours"]) == ("differs", pytest.approx(76.0))
    assert (best["verdict"], best["ours"]) == ("agrees", pytest.approx(76.3))
    for without in (ours(4, 76.3, 0.2), ours(4, 76.0, 0.2, 76.3, 0.4, whole=False)):
        assert not judged(without, number(76.32, rule="best"))
    assert judged(runs, number(76.32, rule="best"))


@pytest.mark.parametrize(
    ("value", "verdict"),  # last 76.0, best 76.3; limits .2479 and .3081 as above
    [(75.6, "differs"), (75.95, "undecided"), (76.15, "agrees"), (76.4, "undecided"), (76.7, "differs")],
)
def test_an_unknown_rule_is_bracketed_by_both(value, verdict):
    runs = ours(4, 76.0, 0.2, 76.3, 0.2)
    unknown = number(value, count=4, rule="unknown")
    probable = number(value, count=4, rule="best")._replace(sure=False)
    assert rule_of(probable) == "unknown"
    assert [judge((runs, [each])).iloc[0]["verdict"] for each in (unknown, probable)] == [verdict] * 2


def test_a_number_that_cannot_be_judged_leaves_it_to_the_others():
    sparse = ours(4, 74.0, 0.1, 74.2, 0.1, whole=False)
    assert compare(sparse, [number(74.1, rule="best"), number(74.42)]).nearest.value == 74.42


@pytest.mark.parametrize(
    ("mine", "verdict", "delta"),
    [(74.0, "differs", -0.42), (74.35, "agrees", -0.07), (74.6, "agrees", -0.13), (75.1, "differs", 0.37)],
)
def test_a_range_contains_what_lies_between(mine, verdict, delta):
    found = judge((ours(4, mine), [number(74.42, count=4), number(74.73, count=4)])).iloc[0]
    assert (found["verdict"], round(found["delta"], 9)) == (verdict, delta)


def test_holm_counts_every_number_of_the_table():
    far = (ours(4, 70.0), [number(70.33, count=4)])
    assert judge(far).iloc[0]["verdict"] == "differs"
    others = [(ours(4, 70.0), [number(70.0, count=4)])] * 10
    assert judge(far, *others).iloc[0]["verdict"] == "undecided"


def test_one_run_is_judged_by_the_noise_of_the_table():
    found = judge((ours(1, 69.0), [number(70.66, count=5)])).iloc[0]
    assert (found["verdict"], found["delta"]) == ("differs", pytest.approx(-1.66))
    nothing = judge((ours(1, 69.0), [number(70.66)]), noise=Noise(math.nan, 0)).iloc[0]
    assert nothing["verdict"] == ""
