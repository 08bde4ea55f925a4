from math import log

import pytest
import torch

from kdbench.method import StageFacts
from kdbench.registry import create
from tests.support import golden, naive
from tests.support.standins import batch, context, facts, logits, views, with_totals

TARGET = [0, 3, 1, 1, 2]


def step(student, middle, head, target, **params):
    """The terms; ``middle`` [B, channels] is the pooled map of the last stage but one."""
    method = create("uskd", params)
    stages = (middle[:, :, None, None].expand(-1, -1, 2, 2), student[:, :, None, None])
    return method.loss(batch(target), views(method, student, stages=stages), None, head)


def terms(case, inputs):
    params = {key: case.hyper[key] for key in ("alpha", "beta", "mu")}
    head = torch.nn.Linear(12, case.hyper["num_classes"]).to(inputs["fc_weight"].dtype)
    head.load_state_dict({"weight": inputs["fc_weight"], "bias": inputs["fc_bias"]})
    student, middle = inputs["student_logits"], inputs["fea_mid"]
    found = step(student, middle, head, inputs["target"], ce_weight=1, **params)
    scaled = {"loss_t": ("target", "alpha"), "loss_non": ("rest", "beta"), "loss_weak": ("weak", "mu")}
    return {**with_totals(found), **{k: found[ours] / params[by] for k, (ours, by) in scaled.items()}}


@golden.each("uskd")
def test_reference(case, dtype):
    if "soft_target" in case.input_names:
        pytest.skip("labels are class numbers here; the reference's mixup branch is left out")
    inputs = case.inputs(dtype)
    golden.check(case, terms(case, inputs), inputs)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_agrees_with_the_loop(form):
    student, middle = logits(5, 4, 0), logits(5, 3, 1)
    head = torch.nn.Linear(3, 4).double()
    found = step(student, middle, head, TARGET, form=form)
    weak = head(middle).tolist()
    probs = [naive.softmax(row) for row in student.tolist()]
    hits = [p[y] for p, y in zip(probs, TARGET, strict=True)]
    mean_square = naive.mean(h * h for h in hits)
    target = naive.mean(-(h * h + 1 - mean_square) * log(h) for h in hits)
    rest, weak_loss = [], []
    for p, row, y in zip(probs, weak, TARGET, strict=True):
        w = naive.softmax(row)
        score = [log(x) for x in p] if form == "code" else p
        ranked = [w[c] / (1 - w[y] + 1e-6) + score[c] / (1 - score[y] + 1e-6) for c in range(4)]
        order = sorted(range(4), key=lambda c: -ranked[c])
        zipf = naive.renormalised(naive.without([1 / (1 + order.index(c)) for c in range(4)], y))
        others = naive.renormalised(naive.without(p, y))
        rest.append(-naive.dot(zipf, [log(q) for q in others]))
        soft = [0.9 * (c == y) + 0.1 / 4 for c in range(4)]
        weak_loss.append(-naive.dot(soft, [log(q) for q in w]))
    assert found["target"].item() == pytest.approx(0.1 * target, rel=1e-10)
    assert found["rest"].item() == pytest.approx(0.1 * naive.mean(rest), rel=1e-10)
    assert found["weak"].item() == pytest.approx(0.1 * naive.mean(weak_loss), rel=1e-10)


def test_the_weak_head_reads_the_last_stage_but_one():
    stages = tuple(StageFacts(channels, (4, 4)) for channels in (8, 16, 32))
    student = facts()
    student = type(student)(**{**vars(student), "stages": stages})
    assert create("uskd", {}).build(context(num_classes=7, student=student)).weight.shape == (7, 16)
    student = type(student)(**{**vars(student), "stages": stages[:1]})
    assert "two stages" in create("uskd", {}).skip(context(student=student))
