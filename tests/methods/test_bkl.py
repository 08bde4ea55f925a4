from math import log

import pytest
import torch

from kdbench.methods.bkl import balanced_kl
from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 2]


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.8, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_agrees_with_the_loop(alpha, beta):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("bkl", TARGET, (student,), (teacher,), alpha=alpha, beta=beta)
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(naive.softmax(t, 4), naive.softmax(s, 4), strict=True)
        rows.append(
            sum(
                (alpha * p * log(p / q) + (1 - alpha) * q * log(q / p)) / (q * q + p * p) ** ((1 - beta) / 2)
                for p, q in pairs
            )
        )
    assert found["bkl"].item() == pytest.approx(0.9 * 16 * naive.mean(rows), rel=1e-10)


def test_one_and_one_is_kd():
    pair = ((logits(5, 4, 0),), (logits(5, 4, 1),))
    found = step("bkl", TARGET, *pair, alpha=1, beta=1)
    expected = step("kd", TARGET, *pair)
    torch.testing.assert_close(found["bkl"], expected["kd"])
    torch.testing.assert_close(found["ce"], expected["ce"])


def test_half_is_symmetric_in_student_and_teacher():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    one, other = balanced_kl(student, teacher, 4, 0.5, 0.3), balanced_kl(teacher, student, 4, 0.5, 0.3)
    torch.testing.assert_close(one, other)
