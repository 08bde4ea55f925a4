import pytest
import torch

from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(case, inputs):
    params = {key: case.hyper[key] for key in ("temperature", "ce_weight", "kd_weight")}
    found = step("lskd", inputs["target"], (inputs["student_logits"],), (inputs["teacher_logits"],), **params)
    return {**with_totals(found), "kd": found["kd"] / params["kd_weight"]}


@golden.each("lskd_kd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    found = terms(case, inputs)
    if "edge: constant rows and tied maxima" not in case.tags:
        golden.check(case, found, inputs)
        return
    golden.close(found["total"], case.arrays["total"], case.name)
    (gradient,) = torch.autograd.grad(found["total"], inputs["student_logits"])
    constant = (
        inputs["student_logits"].std(dim=1) == 0
    )  # there the reference's gradient is about 1/eps, ours 0
    assert constant.any()
    assert gradient[constant].abs().max() == 0
    expected = case.arrays["grad_total__student_logits"][~constant.numpy()]
    golden.close(gradient[~constant], expected, case.name, gradient=True)


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("lskd", TARGET, (student,), (teacher,))
    rows = [[naive.standardized(row) for row in x.tolist()] for x in (student, teacher)]
    assert found["kd"].item() == pytest.approx(9 * naive.soft_kl(*rows, 2), rel=1e-9)
    assert found["ce"].item() == pytest.approx(0.1 * naive.cross_entropy(student.tolist(), TARGET), rel=1e-10)


def test_scale_and_shift_of_both_models_are_free():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    one = step("lskd", TARGET, (student,), (teacher,))["kd"]
    other = step("lskd", TARGET, (3 * student + 7,), (0.5 * teacher - 2,))["kd"]
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
