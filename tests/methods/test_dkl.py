"""dkl and gkl, which share the weighted error of logit differences and the class prior."""

from math import log

import pytest
import torch

from kdbench.methods.dkl import ClassPrior, difference_error
from kdbench.methods.gkl import normalised_error
from kdbench.registry import create
from tests.support import golden, naive
from tests.support.standins import batch, logits, step, views, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(name, case, inputs):
    hyper = case.hyper
    params = {key: hyper[key] for key in ("alpha", "beta", "temperature", "warmup_epochs", "ce_weight")}
    params |= {"weight_temperature": hyper["T2"], "class_prior": hyper["GI (class prior)"]}
    params |= {"gamma": hyper["gamma"]} if name == "gkl" else {}
    student, target = inputs["student_logits"], inputs["target"]
    modules = ClassPrior(student.shape[1]).to(student.dtype)
    if "class_prior" in inputs:
        modules.prior.copy_(inputs["class_prior"])
    elif "class_prior_rows" in inputs:
        modules.prior[target] = inputs["class_prior_rows"]
    pair = ((student,), (inputs["teacher_logits"],))
    found = step(name, target, *pair, epoch=float(hyper["epoch"]), modules=modules, **params)
    return with_totals(found)


@golden.each("dkl", "gkl")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    golden.check(case, terms(case.name.split("-")[0], case, inputs), inputs)


def loop_error(s, t, w):
    pairs = [(j, k) for j in range(len(s)) for k in range(len(s))]
    return sum(w[j] * w[k] * ((t[j] - t[k]) - (s[j] - s[k])) ** 2 for j, k in pairs) / 4


def loop_soft(student, teacher, temperature):
    rows = zip(student, teacher, strict=True)
    return naive.mean(
        -naive.dot(naive.softmax(t, temperature), [log(q) for q in naive.softmax(s, temperature)])
        for s, t in rows
    )


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    s, t = student.tolist(), teacher.tolist()
    weights = [[p**0.3 for p in naive.softmax(row, 2)] for row in t]
    params = {"class_prior": False, "weight_temperature": 2.0}
    errors = [loop_error(*rows) for rows in zip(s, t, weights, strict=True)]
    gkl = step("gkl", TARGET, (student,), (teacher,), gamma=0.3, **params)
    assert gkl["wmse"].item() == pytest.approx(
        16 * sum(errors) / sum(sum(w) ** 2 for w in weights), rel=1e-10
    )
    errors = [loop_error(a, b, naive.softmax(b, 2)) for a, b in zip(s, t, strict=True)]
    dkl = step("dkl", TARGET, (student,), (teacher,), **params)
    assert dkl["wmse"].item() == pytest.approx(8 * naive.mean(errors), rel=1e-10)
    for found in (dkl, gkl):
        assert found["soft"].item() == pytest.approx(loop_soft(s, t, 4), rel=1e-10)


def test_the_first_epoch_s_prior_is_uniform():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    uniform = torch.full((5, 4), 0.25, dtype=torch.float64)
    found = step("dkl", TARGET, (student,), (teacher,))["wmse"]
    torch.testing.assert_close(found, 8 * difference_error(student, teacher, uniform).mean())
    found = step("gkl", TARGET, (student,), (teacher,))["wmse"]
    torch.testing.assert_close(found, 16 * normalised_error(student, teacher, uniform))


def test_the_prior_is_the_class_s_mean_over_the_epoch_before():
    method = create("gkl", {"weight_temperature": 2.0})
    modules = ClassPrior(4).double()
    first, second = logits(3, 4, 0), logits(2, 4, 1)

    def update(teacher, target, last):
        seen = views(method, teacher)
        method.update(batch(target, last=last), seen, seen, modules, {})

    update(first, [0, 2, 0], last=False)
    assert modules.prior.unique().tolist() == [0.25]
    update(second, [2, 0], last=True)
    rows = {0: (first[0], first[2], second[1]), 2: (first[1], second[0])}
    for label, found in rows.items():
        mean = torch.stack([(row / 2).softmax(0) for row in found]).mean(0)
        torch.testing.assert_close(modules.prior[label], mean)
    assert modules.prior[[1, 3]].unique().tolist() == [0.25]  # never came: kept
    before = modules.prior.clone()
    update(second, [1, 1], last=True)  # a new epoch starts from nothing
    torch.testing.assert_close(modules.prior[1], (second / 2).softmax(1).mean(0))
    assert torch.equal(modules.prior[[0, 2, 3]], before[[0, 2, 3]])


def test_the_error_is_kl_s_second_order_by_hand():
    # two classes, weights 1/2: 1/4 * 2 * (1/2)(1/2) * gap^2
    student, teacher = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    assert difference_error(student, teacher, torch.full((1, 2), 0.5)).item() == pytest.approx(4 / 8)
