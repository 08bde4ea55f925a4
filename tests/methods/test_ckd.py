from math import exp, log

import pytest
import torch

from kdbench.methods.ckd import logit_infonce
from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 2]


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("ckd", TARGET, (student,), (teacher,), temperature=0.5)
    s, t = student.tolist(), teacher.tolist()
    rows = []
    for i in range(5):
        powers = [exp(naive.cosine(t[i], s[j]) / 0.5) for j in range(5)]
        rows.append(-log(powers[i] / sum(powers)))
    assert found["contrast"].item() == pytest.approx(100 * naive.mean(rows), rel=1e-10)
    assert found["ce"].item() == pytest.approx(naive.cross_entropy(s, TARGET), rel=1e-10)


def test_by_hand():
    orthogonal = torch.eye(3, dtype=torch.float64)
    assert logit_infonce(orthogonal, 7 * orthogonal, 1.0).item() == pytest.approx(log(1 + 2 / exp(1)))
    alike = torch.ones(3, 3, dtype=torch.float64)
    assert logit_infonce(alike, alike, 1.0).item() == pytest.approx(log(3))
    assert logit_infonce(orthogonal[:1], alike[:1], 1.0).item() == 0  # nothing to tell apart


def test_each_row_s_scale_is_free():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    scales = torch.arange(1.0, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        logit_infonce(student, teacher, 1.0), logit_infonce(scales * student, 3 * scales * teacher, 1.0)
    )
