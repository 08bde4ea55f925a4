from math import exp

import pytest
import torch

from kdbench.methods.ldrld import ldrld_terms, pair_weights
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals


@golden.each("ldrld")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    params = {key: hyper[key] for key in ("alpha", "beta", "k", "temperature", "ce_weight")}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    terms = with_totals(step("ldrld", inputs["target"], *pair, **params))
    local, rest = ldrld_terms(pair[0][0], pair[1][0], hyper["k"], hyper["temperature"])
    golden.check(case, {**terms, "ldrl": local, "rntk": rest}, inputs)


def loop(s, t, k, temperature):
    """One sample, in plain Python."""
    order = sorted(range(len(s)), key=lambda c: -s[c])
    top, rest = order[:k], order[k:]
    total = naive.soft_kl([[s[c] for c in top]], [[t[c] for c in top]], temperature)
    for i in range(1, k + 1):
        for j in range(i + 1, k + 1):
            weight = 2 * exp(-0.05 * (i + j)) / (1.5 + j - i)
            a, b = top[i - 1], top[j - 1]
            total += weight * naive.soft_kl([[s[a], s[b]]], [[t[a], t[b]]], temperature)
    others = naive.soft_kl([[s[c] for c in rest]], [[t[c] for c in rest]], temperature)
    return total / (k * (k - 1) / 2 + 1), others


@pytest.mark.parametrize("k", [2, 4])
def test_agrees_with_the_loop(k):
    student, teacher = logits(5, 6, 0), logits(5, 6, 1)
    local, rest = ldrld_terms(student, teacher, k, 3.0)
    parts = [loop(s, t, k, 3.0) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    assert local.item() == pytest.approx(naive.mean(a for a, _ in parts), rel=1e-10)
    assert rest.item() == pytest.approx(naive.mean(b for _, b in parts), rel=1e-10)


def test_the_weights_of_seven_ranks_sum_to_the_papers_number():
    assert pair_weights(7, torch.zeros(1)).sum().item() == pytest.approx(7.724, abs=5e-4)


def test_more_ranks_than_classes_are_all_classes():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    for few, many in zip(
        ldrld_terms(student, teacher, 4, 4.0), ldrld_terms(student, teacher, 7, 4.0), strict=True
    ):
        assert few.item() == many.item()


def test_large_gaps_do_not_leak():
    student = torch.tensor([[4000.0, 3000.0, 0.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[4000.0, 3000.0, 1.0, 0.0]], dtype=torch.float64)
    _, rest = ldrld_terms(student, teacher, 2, 1.0)
    assert rest.item() == pytest.approx(naive.soft_kl([[0.0, 1.0]], [[1.0, 0.0]], 1), rel=1e-10)
