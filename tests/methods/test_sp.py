import pytest
import torch

from kdbench.methods.sp import sp_loss
from tests.support import golden, naive, pairs


@golden.each("sp")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    weights = {"sp_weight": case.hyper["feat_weight"], "ce_weight": case.hyper["ce_weight"]}
    stages = ({"stages": (inputs[f"{role}_feat0"],)} for role in ("student", "teacher"))
    terms, named = pairs.step("sp", inputs, *stages, **weights)
    golden.check(case, {**named, "sp": terms["sp"] / weights["sp_weight"]}, inputs)


def loop(maps):
    rows = maps.flatten(1).tolist()
    products = [[naive.dot(a, b) for b in rows] for a in rows]
    return [[x / naive.dot(row, row) ** 0.5 for x in row] for row in products]


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(4, 3, 2, 2), pairs.random_map(4, 5, 3, 3, seed=1)
    s, t = loop(student), loop(teacher)
    expected = naive.mean((s[i][j] - t[i][j]) ** 2 for i in range(4) for j in range(4))
    assert sp_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_rotating_the_features_changes_nothing():
    maps = pairs.random_map(4, 3)
    turn, _ = torch.linalg.qr(pairs.random_map(3, 3, seed=1))
    assert sp_loss(2 * maps @ turn, maps).item() == pytest.approx(0, abs=1e-15)


def test_a_dead_sample_has_a_row_of_zeros_and_no_gradient():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    value = sp_loss(student, torch.eye(2))
    value.backward()
    assert value.item() == pytest.approx(1 / 4)  # G_s = [[0, 0], [0, 1]], G_t = 1
    assert student.grad.tolist() == [[0, 0], [0, 0]]


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("sp", student, teacher)
