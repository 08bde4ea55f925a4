import math

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.registry import create
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals


def terms(case, inputs):
    params = {key: case.hyper[key] for key in ("temperature", "ce_weight", "kd_weight")}
    found = step("kd", inputs["target"], (inputs["student_logits"],), (inputs["teacher_logits"],), **params)
    return {**with_totals(found), "kd": found["kd"] / params["kd_weight"]}


@golden.each("kd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    golden.check(case, terms(case, inputs), inputs)


def test_agrees_with_the_loop():
    student, teacher, target = logits(5, 4, 0), logits(5, 4, 1), [0, 3, 1, 1, 2]
    found = step("kd", target, (student,), (teacher,), temperature=3.0)
    loop = 0.9 * naive.soft_kl(student.tolist(), teacher.tolist(), 3.0)
    assert found["kd"].item() == pytest.approx(loop, rel=1e-12)
    assert found["ce"].item() == pytest.approx(0.1 * naive.cross_entropy(student.tolist(), target), rel=1e-12)


def test_by_hand():
    # teacher (3/4, 1/4) at T = 2, student even: KL = 3/4 log(3/2) + 1/4 log(1/2), times 4
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    found = step("kd", [0], (torch.zeros(1, 2),), (teacher,), temperature=2.0, kd_weight=1.0)["kd"]
    assert found.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-6)


def test_gradient_is_the_gap_of_probabilities():
    student, teacher = logits(6, 5, 0).requires_grad_(), logits(6, 5, 1)
    step("kd", [0] * 6, (student,), (teacher,), kd_weight=1.0)["kd"].backward()
    gap = (student / 4).softmax(1) - (teacher / 4).softmax(1)
    torch.testing.assert_close(student.grad, 4 * gap.detach() / 6)


def test_temperature_must_be_positive():
    with pytest.raises(KdbenchError, match=r"kd\.temperature must be greater than 0"):
        create("kd", {"temperature": 0})
