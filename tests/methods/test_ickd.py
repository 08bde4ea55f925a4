from math import sqrt

import pytest
import torch
from torch import nn

from kdbench.methods.ickd import channel_correlation, correlation_gap
from kdbench.registry import create
from tests.support import golden, naive, pairs

STORED = {"0.weight": "conv2d.weight", "1.weight": "l2norm.weight", "1.bias": "l2norm.bias"}


@golden.each("ickd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    maps = [inputs[f"{role}_feat"] for role in ("student", "teacher")]
    modules = create("ickd", {}).build(pairs.context(10, None, *map(pairs.facts_of, maps)))
    pairs.install(modules, {ours: inputs[f"w/embed_s.{theirs}"] for ours, theirs in STORED.items()}, dtype)
    student, teacher = ({"features": m} for m in maps)
    weight = case.hyper["weight"]
    terms, named = pairs.step("ickd", inputs, student, teacher, modules, ickd_weight=weight, kd_weight=0.0)
    golden.check(case, {**named, "ickd": terms["ickd"] / weight}, inputs)


def correlation(channels):
    rows = [[naive.dot(a, b) for b in channels] for a in channels]
    return [[x / sqrt(naive.dot(row, row)) for x in row] for row in rows]


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 4, 2, 2), pairs.random_map(3, 4, 3, 1, seed=1)
    total = 0.0
    for s, t in zip(student.flatten(2).tolist(), teacher.flatten(2).tolist(), strict=True):
        both = zip(pairs.flat(correlation(s)), pairs.flat(correlation(t)), strict=True)
        total += sum((a - b) ** 2 for a, b in both)
    assert correlation_gap(student, teacher).item() == pytest.approx(total / (3 * 4), rel=1e-10)
    sides = ({"features": m} for m in (student, teacher))
    given = {"teacher_logits": pairs.random_map(3, 5, seed=2)}
    terms, _ = pairs.step("ickd", given, *sides, nn.Identity(), ickd_weight=3.0)
    assert terms["ickd"].item() == pytest.approx(3 * total / (3 * 4), rel=1e-10)


def test_hand_values():
    """One channel twice the other: both rows are (1, 2) / sqrt(5)."""
    found = channel_correlation(torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]]]))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 2.0]] * 2]) / sqrt(5))


def test_a_channel_s_place_in_space_and_scale_do_not_matter():
    maps = pairs.random_map(3, 4, 2, 2)
    expected = channel_correlation(maps)
    torch.testing.assert_close(channel_correlation(-7 * maps.flip(2, 3)), expected)


def test_a_dead_channel_is_a_row_of_zeros_without_gradient():
    maps = pairs.random_map(2, 3, 2, 2)
    maps[:, 0] = 0
    maps.requires_grad_()
    found = channel_correlation(maps)
    assert not found[:, 0].any()
    found.sum().backward()
    assert maps.grad.isfinite().all()


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("ickd", student, teacher)
