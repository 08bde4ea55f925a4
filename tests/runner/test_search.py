"""The sampler of trials: a pure function of the finished ones, within its ranges."""

import math

import pytest

from kdbench.runner.search import RANDOM, suggest
from kdbench.utils.search_space import choice, linear_range, log_range

pytest.importorskip("optuna", reason="tuning needs the extra kdbench[tune]")

SPACE = {
    "weight": log_range(0.1, 10.0),
    "share": linear_range(0.0, 1.0),
    "size": linear_range(1, 5),
    "form": choice("a", "b"),
}
KINDS = {"weight": float, "share": float, "size": int, "form": str}


def test_every_value_lies_in_its_range_with_four_digits():
    asked = suggest(SPACE, KINDS, [], 50, seed=3)
    assert len(asked) == 50
    for values in asked:
        assert all(values[key] in SPACE[key] for key in SPACE)
        assert type(values["size"]) is int
        assert values["weight"] == float(f"{values['weight']:.4g}")
    assert {values["form"] for values in asked} == {"a", "b"}
    assert min(values["weight"] for values in asked) < 0.3 < 3 < max(values["weight"] for values in asked)


def test_the_same_past_gives_the_same_future():
    past = [(values, values["weight"]) for values in suggest(SPACE, KINDS, [], 2 * RANDOM, seed=0)]
    assert suggest(SPACE, KINDS, past, 8, seed=5) == suggest(SPACE, KINDS, past, 8, seed=5)
    assert suggest(SPACE, KINDS, past, 8, seed=5) != suggest(SPACE, KINDS, past, 8, seed=6)
    assert suggest(SPACE, KINDS, past, 8, seed=5) != suggest(SPACE, KINDS, past[:-1], 8, seed=5)


def test_values_outside_of_the_space_teach_nothing():
    past = [(values, values["weight"]) for values in suggest(SPACE, KINDS, [], 2 * RANDOM, seed=0)]
    outside = ({**past[0][0], "weight": 99.0}, 1000.0)
    assert suggest(SPACE, KINDS, [*past, outside], 4, seed=1) == suggest(SPACE, KINDS, past, 4, seed=1)


def test_the_search_goes_where_accuracy_is():
    """A peak at weight 4: half of the later trials are within a factor of 2, of random ones 3 in 10."""
    space, kinds, past = {"weight": log_range(0.1, 10.0)}, {"weight": float}, []
    for round_number in range(6):
        for values in suggest(space, kinds, past, 8, seed=round_number):
            past.append((values, -abs(math.log(values["weight"] / 4))))
    near = [abs(math.log(values["weight"] / 4)) < math.log(2) for values, _ in past[24:]]
    assert sum(near) >= len(near) / 2
