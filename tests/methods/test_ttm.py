import pytest
import torch

from kdbench.methods.ttm import ttm_kl
from kdbench.methods.wttm import power_sum
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(name, case, inputs):
    hyper = case.hyper
    params = {"gamma": hyper["l (exponent, = 1/T)"], "beta": hyper["beta"], "ce_weight": hyper["gamma_ce"]}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    found = step(name, inputs["target"], *pair, **params)
    return {**with_totals(found), name: found[name] / params["beta"]}


@golden.each("ttm", "wttm")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    golden.check(case, terms(case.name.split("-")[0], case, inputs), inputs)


@pytest.mark.parametrize("gamma", [0.2, 1.0, 2.0])
def test_agrees_with_the_loop(gamma):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    expected, weighted = [], []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        power = [p**gamma for p in naive.softmax(t)]
        expected.append(naive.kl(naive.renormalised(power), naive.softmax(s)))
        weighted.append(sum(power) * expected[-1])
    ttm = step("ttm", TARGET, (student,), (teacher,), gamma=gamma)["ttm"]
    wttm = step("wttm", TARGET, (student,), (teacher,), gamma=gamma)["wttm"]
    assert ttm.item() == pytest.approx(45 * naive.mean(expected), rel=1e-10)
    assert wttm.item() == pytest.approx(4 * naive.mean(weighted), rel=1e-10)


def test_the_weight_grows_with_the_teacher_s_uncertainty():
    teacher = torch.tensor([[1e3, 0, 0, 0], [0.0, 0, 0, 0]], dtype=torch.float64)
    assert power_sum(teacher, 0.25).tolist() == pytest.approx([1.0, 4**0.75])


def test_the_power_of_one_compares_plain_probabilities():
    pair = (logits(5, 4, 0), logits(5, 4, 1))
    plain = [
        naive.kl(naive.softmax(t), naive.softmax(s)) for s, t in zip(*(x.tolist() for x in pair), strict=True)
    ]
    assert ttm_kl(*pair, 1.0).tolist() == pytest.approx(plain, rel=1e-10)
