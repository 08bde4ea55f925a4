import pytest
import torch

from kdbench.methods.dist import dist_terms, pearson
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(case, inputs):
    hyper = case.hyper
    params = {key: hyper[key] for key in ("beta", "gamma", "tau")}
    params |= {"kd_weight": hyper["kd_loss_weight"], "ce_weight": hyper["ori_loss_weight"]}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    return with_totals(step("dist", inputs["target"], *pair, **params))


@golden.each("dist")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    parts = dist_terms(inputs["student_logits"], inputs["teacher_logits"], case.hyper["tau"])
    named = dict(zip(("inter", "intra"), parts, strict=True))
    found = {**terms(case, inputs), **named}
    if dtype == torch.float64 or "edge: constant rows and tied maxima" not in case.tags:
        golden.check(case, found, inputs)
        return
    for name, value in found.items():
        golden.close(value, case.arrays[name], name)
    # a constant row's gradient is 0/(0 + 1e-8) times a rounding error: only float64 can be compared there
    (gradient,) = torch.autograd.grad(found["total"], inputs["student_logits"])
    rows = inputs["student_logits"].std(dim=1) > 0
    expected = case.arrays["grad_total__student_logits"][rows.numpy()]
    golden.close(gradient[rows], expected, case.name, gradient=True)


def loop_correlation(a, b):
    a, b = ([x - naive.mean(v) for x in v] for v in (a, b))
    return naive.cosine(a, b)


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("dist", TARGET, (student,), (teacher,), beta=0.5)
    s, t = ([naive.softmax(row, 4) for row in x.tolist()] for x in (student, teacher))
    inter = 16 * (1 - naive.mean(map(loop_correlation, s, t)))
    intra = 16 * (1 - naive.mean(map(loop_correlation, naive.transposed(s), naive.transposed(t))))
    assert found["inter"].item() == pytest.approx(2 * 0.5 * inter, rel=1e-5)  # 1e-8 in the denominator
    assert found["intra"].item() == pytest.approx(2 * intra, rel=1e-5)
    assert found["ce"].item() == pytest.approx(naive.cross_entropy(student.tolist(), TARGET), rel=1e-10)


def test_correlation_by_hand_and_blind_to_shift_and_scale():
    row = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.float64)
    assert pearson(row, other, 1).item() == pytest.approx(0.5)
    assert pearson(row, 3 * other + 7, 1).item() == pytest.approx(0.5)
    assert pearson(row, -row, 1).item() == pytest.approx(-1)
