from math import exp

import pytest
import torch
from torch import nn

from kdbench.methods.cc import kernel_matrix, neighbour_loss
from tests.support import golden, naive, pairs


@golden.each("cc")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    size = case.hyper["embed_dim"]
    features = {role: inputs[f"{role}_feat"] for role in ("student", "teacher")}
    modules = nn.ModuleDict({role: nn.Linear(f.shape[1], size) for role, f in features.items()})
    parts = [("student", "w/s.linear."), ("teacher", "w/t.linear.")]
    stored = {f"{role}.{leaf}": inputs[key + leaf] for role, key in parts for leaf in ("weight", "bias")}
    pairs.install(modules, stored, dtype)
    if len(features["student"]) == 1:
        assert neighbour_loss(
            *(m(f) for m, f in zip(modules.values(), features.values(), strict=True))
        ).isnan()
        return
    params = {"cc_weight": case.hyper["beta"], "size": size, "ce_weight": 0.0}
    embeddings = ({"embedding": f} for f in features.values())
    terms, named = pairs.step("cc", inputs, *embeddings, modules, **params)
    golden.check(case, {**named, "cc": terms["cc"] / params["cc_weight"]}, inputs)


def test_the_code_form_agrees_with_the_loop():
    student, teacher = pairs.random_map(5, 3), pairs.random_map(5, 3, seed=1)
    gaps = [[abs(x) for x in row] for row in (student - teacher).tolist()]
    expected = naive.mean(naive.dot(gaps[i], gaps[i + 1]) for i in range(4))
    assert neighbour_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_the_paper_form_agrees_with_the_loop():
    student, teacher = pairs.random_map(4, 3), pairs.random_map(4, 5, seed=1)
    found, _ = pairs.step(
        "cc",
        {},
        {"embedding": student},
        {"embedding": teacher},
        form="paper",
        cc_weight=1,
        gamma=0.3,
        order=3,
    )
    kernels = []
    for rows in (student.tolist(), teacher.tolist()):
        cosines = [naive.cosine(a, b) for a in rows for b in rows]
        kernels.append([exp(-0.6) * (1 + 0.6 * c + 0.36 * c**2 / 2 + 0.216 * c**3 / 6) for c in cosines])
    expected = naive.mean((a - b) ** 2 for a, b in zip(*kernels, strict=True))
    assert found["cc"].item() == pytest.approx(expected, rel=1e-10)


def test_many_orders_give_the_gaussian():
    points = pairs.random_map(4, 3)
    points = points / points.norm(dim=1, keepdim=True)
    squares = (points[:, None] - points[None]).square().sum(dim=2)
    torch.testing.assert_close(kernel_matrix(5 * points, 0.4, 30), torch.exp(-0.4 * squares))


def test_neighbours_that_do_not_overlap_cost_nothing():
    gap = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]])
    assert neighbour_loss(gap, torch.zeros(3, 2)).item() == 0
    assert neighbour_loss(gap[[0, 2, 1]], torch.zeros(3, 2)).item() == 1


@pairs.on_pairs
@pytest.mark.parametrize("form", ["code", "paper"])
def test_on_pairs(student, teacher, form):
    pairs.check("cc", student, teacher, form=form)
