from math import log

import pytest
import torch

from kdbench.methods.tfkd import virtual_teacher
from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 2]


def test_agrees_with_the_loop():
    student = logits(5, 4, 0)
    found = step("tfkd", TARGET, (student,))
    rows = []
    for s, y in zip(student.tolist(), TARGET, strict=True):
        made = naive.softmax([0.99 if c == y else 0.01 / 3 for c in range(4)], 20)
        rows.append(naive.kl(made, naive.softmax(s)))
    assert found["kd"].item() == pytest.approx(0.1 * naive.mean(rows), rel=1e-10)
    assert found["ce"].item() == pytest.approx(0.9 * naive.cross_entropy(student.tolist(), TARGET), rel=1e-10)


def test_the_virtual_teacher_by_hand():
    made = virtual_teacher(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([1]), 0.8, 1 / log(2)).exp()
    # 2^0.8 against 2^0.1 twice
    assert made[0].tolist() == pytest.approx(naive.renormalised([2**0.1, 2**0.8, 2**0.1]), rel=1e-12)
