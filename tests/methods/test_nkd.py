from math import log

import pytest
import torch

from kdbench.methods.nkd import nkd_terms
from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2]


def terms(case, inputs):
    params = {key: case.hyper[key] for key in ("temperature", "gamma", "ce_weight")}
    pair = ((inputs["student_logits"],), (inputs["teacher_logits"],))
    found = step("nkd", inputs["target"], *pair, **params)
    return with_totals(found, loss_t="target", loss_non="rest")


@golden.each("nkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    found = terms(case, inputs)
    if (
        "soft_target" in inputs
    ):  # mixup: its distillation terms take the argmax, its cross-entropy the soft labels
        found = {key: found[key] for key in ("loss_t", "loss_non", "total")}
    golden.check(case, found, inputs)


@pytest.mark.parametrize("keep", [False, True])
def test_agrees_with_the_loop(keep):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    hit, rest = nkd_terms(student, teacher, torch.tensor(TARGET), 3.0, keep_target=keep)
    for i, y in enumerate(TARGET):
        s, t = student[i].tolist(), teacher[i].tolist()
        assert hit[i].item() == pytest.approx(-naive.softmax(t)[y] * log(naive.softmax(s)[y]), rel=1e-10)
        pair = (t, s) if keep else (naive.without(t, y), naive.without(s, y))
        p, q = (naive.softmax(row, 3) for row in pair)
        assert rest[i].item() == pytest.approx(-9 * naive.dot(p, [log(x) for x in q]), rel=1e-10)


def test_weights():
    pair = ((logits(5, 4, 0),), (logits(5, 4, 1),))
    hit, rest = nkd_terms(pair[0][0], pair[1][0], torch.tensor(TARGET), 3.0)
    found = step("nkd", TARGET, *pair)
    assert found["target"].item() == pytest.approx(hit.mean().item())
    assert found["rest"].item() == pytest.approx(3.5 * rest.mean().item())


def test_standardized_logits_enter_both_terms():
    pair = (logits(5, 4, 0), logits(5, 4, 1))
    rows = [torch.tensor([naive.standardized(row) for row in x.tolist()], dtype=x.dtype) for x in pair]
    hit, rest = nkd_terms(*rows, torch.tensor(TARGET), 3.0)
    found = step("nkd", TARGET, pair[:1], pair[1:], standardize=True)
    assert found["target"].item() == pytest.approx(hit.mean().item(), rel=1e-6)
    assert found["rest"].item() == pytest.approx(3.5 * rest.mean().item(), rel=1e-6)
    plain = step("nkd", TARGET, pair[:1], pair[1:])
    assert found["ce"].item() == plain["ce"].item()


def test_even_logits_by_hand():
    even = torch.zeros(2, 5, dtype=torch.float64)
    hit, rest = nkd_terms(even, even, torch.tensor([0, 4]), 2.0)
    assert hit.tolist() == pytest.approx([log(5) / 5] * 2)
    assert rest.tolist() == pytest.approx([4 * log(4)] * 2)
