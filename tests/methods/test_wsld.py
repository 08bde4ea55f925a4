from math import exp, log

import pytest
import torch

from kdbench.methods.wsld import soft_label_weight
from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 2]


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("wsld", TARGET, (student,), (teacher,))
    rows = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), TARGET, strict=True):
        weight = 1 - exp(-log(naive.softmax(s)[y]) / log(naive.softmax(t)[y]))
        rows.append(-weight * naive.dot(naive.softmax(t, 4), [log(q) for q in naive.softmax(s, 4)]))
    assert found["soft"].item() == pytest.approx(2.25 * 16 * naive.mean(rows), rel=1e-5)  # 1e-7 beside CE^t
    assert found["ce"].item() == pytest.approx(naive.cross_entropy(student.tolist(), TARGET), rel=1e-10)


def test_the_weight_by_hand():
    student, teacher = logits(2, 4, 0), logits(2, 4, 1)
    equal = soft_label_weight(teacher, teacher, torch.tensor([0, 1]))
    assert equal.tolist() == pytest.approx([1 - exp(-1)] * 2, rel=1e-5)
    sure = torch.tensor([[1e3, 0, 0, 0]], dtype=torch.float64)
    assert soft_label_weight(student[:1], sure, torch.tensor([0])).item() == pytest.approx(1)
    assert soft_label_weight(sure, teacher[:1], torch.tensor([0])).item() == pytest.approx(0)


def test_the_weight_has_no_gradient():
    student, teacher = logits(5, 4, 0).requires_grad_(), logits(5, 4, 1)
    target = torch.tensor(TARGET)
    step("wsld", TARGET, (student,), (teacher,), ce_weight=0)["soft"].backward()
    weight = soft_label_weight(student, teacher, target)
    gap = (student / 4).softmax(1) - (teacher / 4).softmax(1)
    torch.testing.assert_close(student.grad, 2.25 * 4 * weight[:, None] * gap.detach() / 5)
