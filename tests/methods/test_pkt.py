from math import log

import pytest
import torch

from kdbench.methods.pkt import EPS, neighbours, pkt_loss
from tests.support import golden, naive, pairs


@golden.each("pkt")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    weights = {"pkt_weight": case.hyper["feat_weight"], "ce_weight": case.hyper["ce_weight"]}
    assert case.hyper["eps"] == EPS
    embeddings = ({"embedding": inputs[f"{role}_feat"]} for role in ("student", "teacher"))
    terms, named = pairs.step("pkt", inputs, *embeddings, **weights)
    golden.check(case, {**named, "pkt": terms["pkt"] / weights["pkt_weight"]}, inputs)


def loop(rows):
    near = [[(naive.cosine(a, b) + 1) / 2 for b in rows] for a in rows]
    return [naive.renormalised(row) for row in near]


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(4, 3), pairs.random_map(4, 5, seed=1)
    s, t = loop(student.tolist()), loop(teacher.tolist())
    expected = naive.mean(t[i][j] * log(t[i][j] / s[i][j]) for i in range(4) for j in range(4))
    assert pkt_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)  # EPS


def test_hand_values():
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], dtype=torch.float64)
    assert neighbours(points)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-7)
    assert pkt_loss(points, 5 * points).item() == pytest.approx(0, abs=1e-7)


def test_a_zero_embedding_leaves_a_finite_gradient():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    pkt_loss(student, torch.eye(3)).backward()
    assert student.grad.isfinite().all()
    assert neighbours(student.detach())[0].tolist() == pytest.approx([1 / 3] * 3)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("pkt", student, teacher)
