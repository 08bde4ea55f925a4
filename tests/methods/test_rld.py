import pytest
import torch

from kdbench.losses import standardize
from kdbench.methods.rld import confidence_kl, masked_kl
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(case, inputs):
    hyper = case.hyper
    names = ("alpha", "beta", "temperature", "alpha_temperature", "warmup_epochs", "ce_weight")
    params = {key: hyper[key] for key in names} | {"standardize": hyper.get("logit_stand", False)}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    return with_totals(step("rld", inputs["target"], *pair, epoch=float(hyper["epoch"]), **params))


@golden.each("rld")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    triple = (inputs["student_logits"], inputs["teacher_logits"], inputs["target"])
    scd = confidence_kl(*triple, case.hyper["alpha_temperature"]).mean()
    mcd = masked_kl(*triple, case.hyper["temperature"]).mean()
    golden.check(case, {**terms(case, inputs), "scd": scd, "mcd": mcd}, inputs)


@golden.each("rld_std")
def test_reference_standardized(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    z = [standardize(inputs[f"{role}_logits"]) for role in ("student", "teacher")]
    scd = confidence_kl(*z, inputs["target"], hyper["alpha_temperature"]).mean()
    mcd = masked_kl(*z, inputs["target"], hyper["temperature"]).mean()
    golden.check(case, {**terms(case, inputs), "scd": scd, "mcd": mcd}, inputs)


def loop(s, t, y, temperature):
    q, p = (naive.softmax(row, temperature) for row in (s, t))
    scd = naive.kl([max(p), 1 - max(p)], [q[y], 1 - q[y]])
    kept = [c for c in range(len(t)) if t[c] < t[y]]
    rest = [naive.renormalised([row[c] for c in kept]) for row in (p, q)] if kept else [[1.0], [1.0]]
    return temperature**2 * scd, temperature**2 * naive.kl(*rest)


@pytest.mark.parametrize("z_scores", [False, True])
def test_agrees_with_the_loop(z_scores):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("rld", TARGET, (student,), (teacher,), epoch=10.0, standardize=z_scores)
    rows = [[naive.standardized(r) if z_scores else r for r in x.tolist()] for x in (student, teacher)]
    parts = [loop(s, t, y, 4) for s, t, y in zip(*rows, TARGET, strict=True)]
    assert found["scd"].item() == pytest.approx(0.5 * naive.mean(scd for scd, _ in parts), rel=1e-10)
    assert found["mcd"].item() == pytest.approx(0.5 * 8 * naive.mean(mcd for _, mcd in parts), rel=1e-10)


def test_a_teacher_that_is_right_makes_it_dkd():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    teacher = teacher + 20 * torch.eye(4, dtype=torch.float64)[TARGET]
    rld = step("rld", TARGET, (student,), (teacher,))
    dkd = step("dkd", TARGET, (student,), (teacher,))
    torch.testing.assert_close(rld["scd"], dkd["tckd"])
    torch.testing.assert_close(rld["mcd"], dkd["nckd"])


def test_a_target_ranked_last_leaves_no_rest_term():
    student = logits(1, 4, 0).requires_grad_()
    teacher = torch.tensor([[0.0, 1, 2, 3]], dtype=torch.float64)
    loss = masked_kl(student, teacher, torch.tensor([0]), 4.0).sum()
    assert loss.item() == 0
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0


def test_ties_with_the_target_are_masked():
    student = logits(1, 4, 0)
    tied = torch.tensor([[1.0, 1, 0, -1]], dtype=torch.float64)
    without = torch.tensor([[1.0, 9, 0, -1]], dtype=torch.float64)
    target = torch.tensor([0])
    torch.testing.assert_close(
        masked_kl(student, tied, target, 4.0), masked_kl(student, without, target, 4.0)
    )
