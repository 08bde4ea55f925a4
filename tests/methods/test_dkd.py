import pytest
import torch

from kdbench.methods.dkd import dkd_terms
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(case, inputs):
    hyper = case.hyper
    params = {key: hyper[key] for key in ("alpha", "beta", "temperature", "ce_weight", "warmup_epochs")}
    params["standardize"] = hyper["logit_stand"]
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    return with_totals(step("dkd", inputs["target"], *pair, epoch=float(hyper["epoch"]), **params))


@golden.each("dkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    logits = (inputs["student_logits"], inputs["teacher_logits"])
    parts = dkd_terms(*logits, inputs["target"], case.hyper["temperature"])
    named = dict(zip(("tckd", "nckd"), (part.mean() for part in parts), strict=True))
    golden.check(case, {**terms(case, inputs), **named}, inputs)


@golden.each("lskd_dkd")
def test_reference_standardized(case, dtype):
    inputs = case.inputs(dtype)
    if "edge: constant rows and tied maxima" in case.tags:  # the reference's gradient there is about 1/eps
        golden.close(terms(case, inputs)["total"], case.arrays["total"], case.name)
    else:
        golden.check(case, terms(case, inputs), inputs)


@pytest.mark.parametrize("standardize", [False, True])
def test_agrees_with_the_loop(standardize):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    found = step("dkd", TARGET, (student,), (teacher,), epoch=5, temperature=3.0, standardize=standardize)
    rows = [[naive.standardized(r) if standardize else r for r in x.tolist()] for x in (student, teacher)]
    loop = [naive.dkd(s, t, y, 3.0) for s, t, y in zip(*rows, TARGET, strict=True)]
    assert found["tckd"].item() == pytest.approx(5 / 20 * naive.mean(part for part, _ in loop), rel=1e-7)
    assert found["nckd"].item() == pytest.approx(5 / 20 * 8 * naive.mean(part for _, part in loop), rel=1e-7)


def test_kl_is_target_part_plus_missed_mass_times_rest():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    target = torch.tensor(TARGET)
    tckd, nckd = dkd_terms(student, teacher, target, 2.0)
    missed = 1 - (teacher / 2).softmax(1).gather(1, target[:, None]).squeeze(1)
    pairs = zip(student.tolist(), teacher.tolist(), strict=True)
    whole = [4 * naive.kl(naive.softmax(t, 2), naive.softmax(s, 2)) for s, t in pairs]
    torch.testing.assert_close(tckd + missed * nckd, torch.tensor(whole, dtype=torch.float64))


def test_warmup_grows_to_one():
    pair = ((logits(5, 4, 0),), (logits(5, 4, 1),))
    at = {epoch: step("dkd", TARGET, *pair, epoch=epoch)["nckd"].item() for epoch in (1.0, 10.0, 20.0, 240.0)}
    assert at[1.0] == pytest.approx(at[240.0] / 20)
    assert at[10.0] == pytest.approx(at[240.0] / 2)
    assert at[20.0] == at[240.0]


def test_a_certain_teacher_leaves_a_finite_gradient():
    student = (1e4 * logits(5, 4, 0, dtype=torch.float32)).requires_grad_()
    sum(step("dkd", TARGET, (student,), (1e4 * logits(5, 4, 1, dtype=torch.float32),)).values()).backward()
    assert student.grad.isfinite().all()
