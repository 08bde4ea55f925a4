from math import sqrt

import pytest
import torch

from kdbench.losses import soft_kl
from kdbench.methods.mlkd import mask_fractions
from kdbench.methods.skd import direction_gap
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals


@golden.each("skd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    params = {key: hyper[key] for key in ("temperature", "ce_weight", "kd_weight", "tikhonov")}
    terms = with_totals(step("skd", inputs["target"], *pair, **params))
    student, teacher = pair[0][0], pair[1][0]
    direction = direction_gap(student, teacher, hyper["tikhonov"])
    if not case.differentiable:  # student equals teacher: the released square root has no gradient there
        for key in ("ce", "total", "total_with_ce"):
            golden.close(terms[key], case.arrays[key], key)
        golden.close(direction, case.arrays["direction"], "direction")
        return
    golden.check(case, {**terms, "direction": direction}, inputs)


def test_agrees_with_the_loop():
    student, teacher = logits(4, 5, 0), logits(4, 5, 1)

    def cosines(rows):
        return [[naive.cosine(a, b) / len(a) for b in rows] for a in rows]

    gap = [
        [s - t for s, t in zip(a, b, strict=True)]
        for a, b in zip(cosines(student.tolist()), cosines(teacher.tolist()), strict=True)
    ]
    n = len(gap)
    centre = [naive.mean(column) for column in naive.transposed(gap)]
    metric = [
        [
            sum((row[i] - centre[i]) * (row[j] - centre[j]) for row in gap) / (n - 1) + 0.1 * (i == j)
            for j in range(n)
        ]
        for i in range(n)
    ]
    inverse = torch.tensor(metric, dtype=torch.float64).inverse().tolist()
    lengths = [sqrt(naive.dot(row, [naive.dot(line, row) for line in inverse])) for row in gap]
    assert direction_gap(student, teacher, 0.1).item() == pytest.approx(naive.mean(lengths), rel=1e-9)


def test_equal_models_have_no_gradient():
    student = logits(6, 4, 0).requires_grad_()
    direction_gap(student, student.detach().clone(), 0.1).backward()
    assert student.grad.abs().max() == 0


def test_the_scale_of_logits_does_not_count():
    student, teacher = logits(6, 4, 0), logits(6, 4, 1)
    assert direction_gap(7 * student, teacher, 0.1).item() == pytest.approx(
        direction_gap(student, teacher, 0.1).item()
    )


def test_weights():
    pair = ((logits(6, 4, 0),), (logits(6, 4, 1),))
    terms = step("skd", [0, 1, 2, 3, 0, 1], *pair)
    assert [share.item() for share in mask_fractions(pair[1][0])] == [0.5, 0.5]
    assert terms["kd"].item() == pytest.approx(0.45 * soft_kl(pair[0][0], pair[1][0], 4.0).item())
    assert terms["direction"].item() == pytest.approx(
        0.45 * direction_gap(pair[0][0], pair[1][0], 0.1).item()
    )
