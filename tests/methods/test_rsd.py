from math import sqrt

import pytest
import torch

from kdbench.methods.rsd import redundancy, standardised
from kdbench.registry import create
from tests.support import golden, naive, pairs


@golden.each("rsd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    params = {"rsd_weight": hyper["weight"], "kappa": hyper["kappa"], "width": hyper["gamma"]}
    sizes = [inputs[f"{role}_embedding"].shape[1] for role in ("student", "teacher")]
    facts = [pairs.facts_of(torch.zeros(1, size, 1, 1)) for size in sizes]
    modules = create("rsd", params).build(pairs.context(10, None, *facts))
    prefix = "w/projector."
    stored = {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}
    pairs.install(modules, stored, dtype)
    embeddings = ({"embedding": inputs[f"{role}_embedding"]} for role in ("student", "teacher"))
    given = {**inputs, "teacher_logits": torch.zeros_like(inputs["student_logits"])}
    terms, named = pairs.step("rsd", given, *embeddings, modules, **params)
    golden.check(case, {**named, "rsd": terms["rsd"] / hyper["weight"]}, inputs)
    golden.close(modules(inputs["student_embedding"]), case.arrays["projected"], "projected")


def loop_standardised(rows):
    columns = []
    for column in naive.transposed(rows):
        centre = naive.mean(column)
        deviation = sqrt(naive.mean((value - centre) ** 2 for value in column))
        columns.append([(value - centre) / (deviation + 1e-5) for value in column])
    return columns


@pytest.mark.parametrize("kappa", [0.01, 0.7])
def test_agrees_with_the_loop(kappa):
    student, teacher = 3 * pairs.random_map(6, 4), pairs.random_map(6, 4, seed=1)
    expected = 0.0
    for i, t in enumerate(loop_standardised(teacher.tolist())):
        for j, s in enumerate(loop_standardised(student.tolist())):
            correlation = naive.dot(t, s) / 6
            expected += (correlation - 1) ** 2 if i == j else kappa * correlation**2
    assert redundancy(student, teacher, kappa).item() == pytest.approx(expected, rel=1e-10)


def test_uncorrelated_equal_dimensions_cost_nothing():
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert redundancy(corners, 5 * corners + 3, 0.5).item() == pytest.approx(0, abs=1e-8)
    swapped = redundancy(corners.flip(1), corners, 0.5).item()  # 2 zeros on the diagonal, 2 ones off it
    assert swapped == pytest.approx(2 + 2 * 0.5, rel=1e-4)
    assert redundancy(-corners, corners, 0.5).item() == pytest.approx(2 * 4, rel=1e-4)


def test_a_constant_dimension_has_no_gradient():
    student = pairs.random_map(6, 3)
    student[:, 0] = 4
    student.requires_grad_()
    assert standardised(student)[:, 0].abs().max() == 0
    (slope,) = torch.autograd.grad(redundancy(student, pairs.random_map(6, 3, seed=1), 0.5), student)
    assert slope[:, 0].abs().max() == 0
    assert slope[:, 1:].abs().max() > 0


def test_reordered_dimensions_of_both_change_nothing():
    student, teacher = pairs.random_map(6, 3), pairs.random_map(6, 3, seed=1)
    order = torch.tensor([2, 0, 1])
    value = redundancy(student, teacher, 0.3)
    torch.testing.assert_close(redundancy(student[:, order], teacher[:, order], 0.3), value)
    assert not torch.isclose(redundancy(student[:, order], teacher, 0.3), value)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("rsd", student, teacher)
