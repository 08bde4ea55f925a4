import math

import pytest
import torch

from kdbench.losses import standardize
from kdbench.methods.ctkd import adversary, learned_temperature
from kdbench.methods.dkd import dkd_terms
from kdbench.registry import create
from tests.support import golden, naive
from tests.support.standins import context, logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def modules(theta):
    built = create("ctkd", {}).build(context())
    built.theta = torch.nn.Parameter(theta.detach().clone())
    return built


def terms(case, inputs, built):
    hyper = case.hyper
    if hyper["variant"] == "ctkd+dkd":  # the learned temperature inside another loss
        factor = adversary(hyper["epoch_1based"], int(hyper["decay_loops"]))
        temperature = learned_temperature(built.theta, factor, hyper["t_start"], hyper["t_end"])
        pair = (inputs["student_logits"], inputs["teacher_logits"])
        parts = dkd_terms(*pair, inputs["target"], temperature)
        ce = hyper["gamma"] * torch.nn.functional.cross_entropy(inputs["student_logits"], inputs["target"])
        weighted = (
            hyper["beta"] * hyper[f"dkd_{n}"] * p.mean()
            for n, p in zip(("alpha", "beta"), parts, strict=True)
        )
        return with_totals({"ce": ce, "kd": sum(weighted)})
    params = {
        "t_start": hyper["t_start"],
        "t_span": hyper["t_end"],
        "lambda_epochs": int(hyper["decay_loops"]),
    }
    params |= {"kd_weight": hyper["alpha"], "ce_weight": hyper["gamma"]}
    params |= {"standardize": "standardisation" in hyper["variant"]}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    found = step("ctkd", inputs["target"], *pair, epoch=float(hyper["epoch_1based"]), modules=built, **params)
    return with_totals(found)


@golden.each("ctkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    built = modules(inputs["theta"].squeeze())
    found = terms(case, inputs, built)
    golden.check(case, found, inputs)
    (of_theta,) = torch.autograd.grad(found["total"], built.theta)
    if case.hyper["variant"] == "ctkd+dkd":  # the reference gives NaN; its own finite difference is the truth
        assert of_theta.item() == pytest.approx(case.arrays["grad_theta_fd"].item(), rel=1e-4)
    else:
        golden.close(of_theta, case.arrays["grad_theta"], f"{case.name}: theta", gradient=True)


def test_the_schedule_is_the_reference_s():
    stored = golden.cases("ctkd")[0].arrays["cosine_lambda"]
    assert [adversary(epoch, 10) for epoch in range(16)] == pytest.approx(stored.tolist(), abs=1e-12)


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    temperature = 1 + 20 / (1 + math.exp(-1))
    found = step("ctkd", TARGET, (student,), (teacher,))
    loop = 0.9 * naive.soft_kl(student.tolist(), teacher.tolist(), temperature)
    assert found["kd"].item() == pytest.approx(loop, rel=1e-6)  # theta is float32
    assert found["ce"].item() == pytest.approx(0.1 * naive.cross_entropy(student.tolist(), TARGET), rel=1e-12)


def test_theta_climbs_the_loss_as_fast_as_lambda_lets_it():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    theta = torch.tensor(0.3, dtype=torch.float64)

    def loss(value, epoch):
        built = modules(value)
        return step("ctkd", TARGET, (student,), (teacher,), epoch=epoch, modules=built)["kd"], built.theta

    slope = ((loss(theta + 1e-6, 1)[0] - loss(theta - 1e-6, 1)[0]) / 2e-6).item()
    for epoch, share in ((5.0, 0.5), (10.0, 1.0), (240.0, 1.0)):
        value, parameter = loss(theta, epoch)
        assert torch.autograd.grad(value, parameter)[0].item() == pytest.approx(-share * slope, rel=1e-6)


def test_standardized_is_ctkd_on_standardized_logits():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    one = step("ctkd", TARGET, (student,), (teacher,), standardize=True)["kd"]
    other = step("ctkd", TARGET, (standardize(student),), (standardize(teacher),))["kd"]
    torch.testing.assert_close(one, other)
