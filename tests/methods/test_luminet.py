from math import log, sqrt

import pytest
import torch

from kdbench.methods.luminet import luminet_kl, perception
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals


@golden.each("luminet")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    params = {key: hyper[key] for key in ("temperature", "ce_weight", "warmup_epochs")}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    terms = step(
        "luminet", inputs["target"], *pair, epoch=float(hyper["epoch"]), alpha=float(hyper["alpha"]), **params
    )
    plain = hyper["alpha"] ** 2 * luminet_kl(pair[0][0], pair[1][0], hyper["temperature"])
    found = {**with_totals(terms), "luminet": plain}
    if dtype is torch.float32 and "identical" in " ".join(case.tags):  # alpha^2 multiplies the rounding too
        found = {key: found[key] for key in ("ce",)}
        golden.close(found["ce"], case.arrays["ce"], "ce")
        return
    golden.check(case, found, inputs)


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)

    def loop(rows):
        columns = naive.transposed(rows)
        scaled = []
        for column in columns:
            centre = naive.mean(column)
            variance = naive.mean((z - centre) ** 2 for z in column)
            scaled.append([(z - centre) / sqrt(variance + 1e-5) for z in column])
        return naive.transposed(scaled)

    expected = naive.soft_kl(loop(student.tolist()), loop(teacher.tolist()), 3.0) / 9
    assert luminet_kl(student, teacher, 3.0).item() == pytest.approx(expected, rel=1e-10)


def test_two_samples_by_hand():
    """Two samples lie one standard deviation from their mean, whatever their logits."""
    values = perception(torch.tensor([[0.0, 8.0], [4.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(
        values, torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_a_class_scaled_and_shifted_changes_nothing():
    student, teacher = 100 * logits(6, 4, 0), logits(6, 4, 1)
    moved = student * torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.tensor([5.0, 0.0, -7.0, 1.0])
    assert luminet_kl(moved, teacher, 4.0).item() == pytest.approx(
        luminet_kl(student, teacher, 4.0).item(), rel=1e-6
    )


def test_warm_up_and_weight():
    pair = ((logits(5, 4, 0),), (logits(5, 4, 1),))
    early = step("luminet", [0, 1, 2, 3, 0], *pair, epoch=5.0, alpha=6.0)["kd"]
    assert early.item() == pytest.approx(0.25 * 36 * luminet_kl(pair[0][0], pair[1][0], 4.0).item())
    assert step("luminet", [0], (torch.zeros(1, 2),), (torch.zeros(1, 2),))["ce"].item() == pytest.approx(
        2 * log(2)
    )
