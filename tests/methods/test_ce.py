import math

import pytest
import torch

from tests.support.naive import cross_entropy
from tests.support.standins import logits, step


def test_agrees_with_the_loop():
    student = logits(5, 4)
    assert step("ce", [0, 3, 1, 1, 2], (student,))["ce"].item() == pytest.approx(
        cross_entropy(student.tolist(), [0, 3, 1, 1, 2]), rel=1e-12
    )


def test_even_logits_cost_log_c():
    assert step("ce", [0, 6], (torch.zeros(2, 7),)).keys() == {"ce"}
    assert step("ce", [0, 6], (torch.zeros(2, 7),))["ce"].item() == pytest.approx(math.log(7))
