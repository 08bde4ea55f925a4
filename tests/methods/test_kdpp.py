from math import sqrt

import pytest
import torch

from kdbench.methods.kdpp import ClassDirections, norm_direction_loss
from kdbench.registry import create
from tests.support import golden, naive, pairs
from tests.support.standins import batch, views


@golden.each("kdpp")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    modules = ClassDirections(len(inputs["class_means"]), 1, 1)
    modules.directions = torch.nn.functional.normalize(inputs["class_means"], dim=1)
    params = {
        "nd_weight": hyper["nd_loss_factor"],
        "kd_weight": hyper["kd_loss_factor"],
        "ce_weight": hyper["cls_loss_factor"],
        "kd_temperature": hyper["temperature"],
        "warmup_epochs": int(hyper["warm_up"]),
    }
    embeddings = ({"embedding": inputs[f"{role}_emb"]} for role in ("student", "teacher"))
    terms, named = pairs.step("kdpp", inputs, *embeddings, modules, hyper["epoch_0based"] + 1.0, **params)
    parts = {"nd": terms["nd"] / params["nd_weight"]}
    if hyper["warmup_factor"]:
        parts["kd"] = terms["kd"] / hyper["warmup_factor"]
    if "edge: identical embeddings" in case.tags:  # max(|s|, |t|) has no one gradient there
        for name, value in {**named, **parts}.items():
            golden.close(value, case.arrays[name], name)
        return
    golden.check(case, {**named, **parts}, inputs)


def test_agrees_with_the_loop():
    student, teacher, direction = (pairs.random_map(4, 3, seed=seed) for seed in range(3))
    direction = direction / direction.norm(dim=1, keepdim=True)
    rows = zip(student.tolist(), teacher.tolist(), direction.tolist(), strict=True)
    expected = naive.mean(
        1 - naive.dot(s, e) / max(sqrt(naive.dot(s, s)), sqrt(naive.dot(t, t))) for s, t, e in rows
    )
    assert norm_direction_loss(student, teacher, direction).item() == pytest.approx(expected, rel=1e-10)


def test_a_longer_student_of_the_right_direction_is_perfect():
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    for length, expected in ((5.0, 0.0), (2.0, 0.0), (1.0, 0.5)):
        found = norm_direction_loss(
            length * direction, torch.tensor([[0.0, 2.0]], dtype=torch.float64), direction
        )
        assert found.item() == pytest.approx(expected, abs=1e-15)


def test_two_zero_embeddings_give_one_and_no_gradient():
    student = torch.zeros(1, 2, requires_grad=True)
    value = norm_direction_loss(student, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    value.backward()
    assert value.item() == 1
    assert student.grad.isfinite().all()


def test_prepare_averages_each_class_and_skips_absent_ones():
    method, modules = create("kdpp", {}), ClassDirections(3, 2, 2)
    embedding = torch.tensor([[1.0, 0.0], [5.0, 8.0], [0.0, -2.0]])
    seen = [
        (batch(target), views(method, torch.zeros(len(rows), 3), embedding=rows))
        for target, rows in (([0, 0], embedding[:2]), ([2], embedding[2:]))
    ]
    method.prepare(pairs.context(3), seen, modules)
    torch.testing.assert_close(modules.directions, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]))


def test_the_first_epoch_has_no_kl():
    problem = pairs.Problem("kdpp")
    at = {epoch: problem.terms(epoch)["kd"].item() for epoch in (1.0, 11.0, 21.0, 240.0)}
    assert at[1.0] == 0
    assert at[11.0] == pytest.approx(at[240.0] / 2)
    assert at[21.0] == at[240.0]


def test_standardized_logits():
    problem = pairs.Problem("kdpp", standardize=True)
    rows = [[naive.standardized(row) for row in v.logits.tolist()] for v in problem.views()]
    assert problem.terms()["kd"].item() == pytest.approx(naive.soft_kl(*rows, 4.0), rel=1e-4)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    problem = pairs.check("kdpp", student, teacher)
    same = problem.context.student.embedding_size == problem.context.teacher.embedding_size
    assert isinstance(problem.modules.project, torch.nn.Identity) == same
