import pytest
import torch

from kdbench.losses import sort_to_target, swap_top
from kdbench.methods.sld import pooled_kl
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

VIEWS = ("weak", "strong")


@golden.each("sld")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    student, teacher = (
        tuple(inputs[f"{role}_logits_{view}"] for view in VIEWS) for role in ("student", "teacher")
    )
    params = {key: hyper[key] for key in ("ce_weight", "kd_weight")}
    terms = step(
        "sld",
        inputs["target"],
        student,
        teacher,
        epoch=float(hyper["epoch"]),
        second_after=hyper["second_teacher_after"],
        **params,
    )
    golden.check(case, with_totals(terms), inputs)


def loop_swap(row, y):
    row = list(row)
    top = row.index(max(row))
    row[top], row[y] = row[y], row[top]
    return row


def test_agrees_with_the_loop():
    target = [0, 3, 1, 1, 2]
    student, teacher = (tuple(logits(5, 4, seed + 2 * role) for seed in (0, 1)) for role in (0, 1))
    terms = step("sld", target, student, teacher, epoch=200.0)
    kd = own = 0.0
    for s, t in zip(student, teacher, strict=True):
        s, t = s.tolist(), t.tolist()
        for temperature in range(1, 7):
            kd += naive.soft_kl(s, [loop_swap(r, y) for r, y in zip(t, target, strict=True)], temperature)
            own += naive.soft_kl(s, [loop_swap(r, y) for r, y in zip(s, target, strict=True)], temperature)
    assert terms["kd"].item() == pytest.approx(0.9 * kd, rel=1e-10)
    assert terms["self"].item() == pytest.approx(0.9 * own, rel=1e-10)


@pytest.mark.parametrize(("epoch", "on"), [(150.0, False), (151.0, True)])
def test_the_second_teacher_comes_after_epoch_150(epoch, on):
    pair = ((logits(5, 4, 0),) * 2, (logits(5, 4, 1),) * 2)
    assert (step("sld", [0, 3, 1, 1, 2], *pair, epoch=epoch)["self"].item() > 0) is on


def test_detached_second_teacher_has_another_gradient():
    grads = []
    for detach in (False, True):
        student = logits(5, 4, 0).requires_grad_()
        terms = step(
            "sld", [0, 3, 1, 1, 2], (student,) * 2, (logits(5, 4, 1),) * 2, epoch=200.0, detach=detach
        )
        grads.append(torch.autograd.grad(terms["self"], student)[0])
    assert not torch.allclose(*grads)


def test_swap_by_hand():
    rows = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]])
    assert swap_top(rows, torch.tensor([2, 1])).tolist() == [[1.0, 3.0, 5.0], [1.0, 5.0, 3.0]]


def test_sort_by_hand():
    """The target takes the largest value; the classes that were above it move down by one."""
    rows = torch.tensor([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0]])
    moved = sort_to_target(rows, torch.tensor([3, 0]))
    assert moved.tolist() == [[3.0, 1.0, 2.0, 4.0], [4.0, 1.0, 3.0, 2.0]]


def test_pooled_temperatures():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    expected = sum(naive.soft_kl(student.tolist(), teacher.tolist(), t) for t in range(1, 7))
    assert pooled_kl(student, teacher).item() == pytest.approx(expected, rel=1e-10)
