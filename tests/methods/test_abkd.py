from math import log

import pytest
import torch

from kdbench.losses import kl
from kdbench.methods.abkd import alpha_beta_divergence
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals


@golden.each("abkd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    params = {key: hyper[key] for key in ("alpha", "beta", "temperature", "ce_weight")}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    terms = step("abkd", inputs["target"], *pair, kd_weight=hyper["weight"], **params)
    golden.check(case, {**with_totals(terms), "divergence": terms["kd"] / hyper["weight"]}, inputs)


def probabilities(seed):
    return logits(5, 4, seed).log_softmax(dim=1)


@pytest.mark.parametrize(("alpha", "beta"), [(0.8, 0.3), (2.0, -0.5), (0.5, 0.5)])
def test_agrees_with_the_loop(alpha, beta):
    student, teacher = probabilities(0), probabilities(1)
    values = alpha_beta_divergence(student, teacher, alpha, beta).tolist()
    for value, q, p in zip(values, student.exp().tolist(), teacher.exp().tolist(), strict=True):
        both = alpha + beta
        terms = [
            a**alpha * b**beta - alpha / both * a**both - beta / both * b**both
            for a, b in zip(p, q, strict=True)
        ]
        assert value == pytest.approx(-sum(terms) / (alpha * beta), rel=1e-9)


def test_standardized_with_one_and_zero_is_lskd():
    """But for lskd's T^2."""
    pair = ((logits(5, 4, 0),), (logits(5, 4, 1),))
    params = {"temperature": 2.0, "kd_weight": 9.0}
    ours = step("abkd", [0, 3, 1, 1, 2], *pair, alpha=1.0, beta=0.0, standardize=True, **params)
    theirs = step("lskd", [0, 3, 1, 1, 2], *pair, **params)
    torch.testing.assert_close(2.0**2 * ours["kd"], theirs["kd"])


def test_one_and_zero_is_kl():
    student, teacher = probabilities(0), probabilities(1)
    torch.testing.assert_close(alpha_beta_divergence(student, teacher, 1.0, 0.0), kl(student, teacher))


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.0), (0.0, 0.5), (2.0, -2.0), (-0.7, 0.7)])
def test_exact_limits_continue_the_general_case(alpha, beta):
    student, teacher = probabilities(0), probabilities(1)
    limit = alpha_beta_divergence(student, teacher, alpha, beta, exact=True)
    near = alpha_beta_divergence(student, teacher, alpha + 1e-6, beta + 1e-6)
    torch.testing.assert_close(limit, near, rtol=1e-4, atol=1e-5)


def test_the_released_limits_lack_a_factor():
    student, teacher = probabilities(0), probabilities(1)
    code = alpha_beta_divergence(student, teacher, 0.5, 0.0)
    torch.testing.assert_close(alpha_beta_divergence(student, teacher, 0.5, 0.0, exact=True), 2 * code)


def test_two_classes_by_hand():
    student = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    value = alpha_beta_divergence(student, teacher, 0.0, 0.0).item()
    assert value == pytest.approx(0.5 * (log(2) ** 2 + log(1.5) ** 2))


def test_large_logits_have_a_gradient():
    student = (1000 * logits(4, 5, 0, dtype=torch.float32)).requires_grad_()
    step("abkd", [0, 1, 2, 3], (student,), (1000 * logits(4, 5, 1, dtype=torch.float32),))["kd"].backward()
    assert student.grad.isfinite().all()


def test_equal_models_cost_nothing():
    same = probabilities(0)
    assert naive.mean(alpha_beta_divergence(same, same, 0.8, 0.3).tolist()) == pytest.approx(0, abs=1e-12)
