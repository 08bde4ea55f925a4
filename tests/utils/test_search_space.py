"""Search spaces: what a range holds, and that each shipped method has one."""

import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import field_types
from kdbench.utils.search_space import choice, linear_range, log_range

registry.load()


def test_a_range_holds_its_ends_and_what_is_between():
    for values in (linear_range(1.0, 4.0), log_range(1.0, 4.0)):
        assert [x in values for x in (0.99, 1.0, 2, 4.0, 4.01)] == [False, True, True, True, False]
        assert values.corners == (1.0, 4.0)
    assert [x in choice("a", "b") for x in ("a", "c")] == [True, False]
    assert choice("a", "b").corners == ("a", "b")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: linear_range(2.0, 2.0), "is empty"),
        (lambda: linear_range(3.0, 1.0), "smaller number first"),
        (lambda: log_range(0.0, 1.0), "above 0"),
        (lambda: linear_range(0.0, float("nan")), "is empty"),
        (lambda: choice("a", "a"), "two different values"),
    ],
)
def test_what_is_no_range_is_refused(make, said):
    with pytest.raises(KdbenchError, match=said):
        make()


@pytest.mark.parametrize("name", registry.names())
def test_all_weights_and_temperatures_are_searched(name):
    """Not the weight of the labels: beside the learning rate only ratios of weights count. What is 0 is not in use."""
    method = registry.get(name)()
    used = [f for f in field_types(type(method)) if getattr(method, f) != 0]
    needed = {f for f in used if f in method.weights and method.weights[f] != "ce"}
    needed |= {f for f in used if f.endswith("temperature")}
    if not getattr(method, "kd_weight", 1):
        needed -= {"kd_temperature"}
    assert needed <= set(method.space)
    assert bool(method.space) == (name != "ce")
