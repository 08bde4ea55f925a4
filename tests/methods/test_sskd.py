"""SSKD's terms against a loop over images and rotations, and the training of the teacher's head."""

from itertools import combinations

import pytest
import torch

from kdbench import registry
from kdbench.method import Outputs, Views
from kdbench.methods.sskd import fit, kept, projection, rank_of, similarities
from tests.support import naive
from tests.support.standins import batch, context, facts, logits

TARGET = [0, 3, 1, 1]
SIZE = 6
METHOD = registry.create("sskd", {})
VIEWS = METHOD.needs.views


def model(seed, embeddings=None):
    """Logits [4, 4] and embeddings [4, 6] of each view, the latter ReLU's output like a real one."""
    return Views(
        {
            view: Outputs(
                logits(4, 4, seed + place),
                (logits(4, SIZE, seed + place + 50) if embeddings is None else embeddings[place]).relu(),
            )
            for place, view in enumerate(VIEWS)
        },
        METHOD.needs,
    )


def heads(seed=0):
    torch.manual_seed(seed)
    return METHOD.build(
        context(student=facts(embedding_size=SIZE), teacher=facts(embedding_size=SIZE))
    ).double()


def projected(head, row):
    """Two linear layers of one embedding, as lists."""
    first, _, second = head
    for layer, squash in ((first, True), (second, False)):
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        row = [
            sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(weight, bias, strict=True)
        ]
        row = [max(x, 0.0) for x in row] if squash else row
    return row


def rank(row, own):
    return sum(x > row[own] for x in row)


def released_mean(values, ranks, share):
    """The mean over the rows that the release keeps: an average over all its choices among rows of equal rank."""
    wrong = sum(r > 0 for r in ranks)
    count = len(ranks) - wrong + int(wrong * share)
    last = sorted(ranks)[count - 1]
    sure = [v for v, r in zip(values, ranks, strict=True) if r < last]
    tied = [v for v, r in zip(values, ranks, strict=True) if r == last]
    choices = list(combinations(tied, count - len(sure)))
    return sum(sum(sure) + sum(choice) for choice in choices) / len(choices) / count


def loop(student, teacher, modules, tf_share, ss_share):
    """(tf, ss) without weights: rotation by rotation, image by image."""
    tf, tf_ranks, ss, ss_ranks = [], [], [], []
    plain = [
        [projected(head, row) for row in m.embedding.tolist()]
        for head, m in ((modules.student, student), (modules.teacher, teacher))
    ]
    for view in VIEWS[1:]:
        for i, y in enumerate(TARGET):
            s, t = student[view].logits[i].tolist(), teacher[view].logits[i].tolist()
            tf.append(naive.soft_kl([s], [t], 4.0))
            tf_ranks.append(rank(t, y))
            own = projected(modules.student, student[view].embedding[i].tolist())
            other = projected(modules.teacher, teacher[view].embedding[i].tolist())
            a, b = (
                [naive.cosine(x, row) for row in rows] for x, rows in zip((own, other), plain, strict=True)
            )
            ss.append(naive.soft_kl([a], [b], 0.5))
            ss_ranks.append(rank(b, i))
    return released_mean(tf, tf_ranks, tf_share), released_mean(ss, ss_ranks, ss_share)


@pytest.mark.parametrize("shares", [(1.0, 0.75), (0.5, 0.4), (0.0, 0.0)])
def test_agrees_with_the_loop(shares):
    student, teacher, modules = model(0), model(10), heads()
    method = registry.create("sskd", {"tf_share": shares[0], "ss_share": shares[1]})
    terms = method.loss(batch(TARGET), student, teacher, modules)
    tf, ss = loop(student, teacher, modules, *shares)
    assert terms["tf"].item() == pytest.approx(2.7 * tf, rel=1e-9)
    assert terms["ss"].item() == pytest.approx(10 * ss, rel=1e-9)
    kd = naive.soft_kl(student.logits.tolist(), teacher.logits.tolist(), 4.0)
    assert terms["kd"].item() == pytest.approx(0.9 * kd, rel=1e-9)
    ce = torch.nn.functional.cross_entropy(student.logits, torch.tensor(TARGET))
    assert terms["ce"].item() == pytest.approx(0.1 * ce.item(), rel=1e-9)


def test_no_row_is_kept_where_all_are_wrong_and_none_may_be():
    assert kept(torch.tensor([1, 2, 3]), 0.0).tolist() == [0, 0, 0]
    assert kept(torch.tensor([0, 2, 3]), 0.0).tolist() == [1, 0, 0]
    assert kept(torch.tensor([4, 2, 3, 0]), 1.0).tolist() == [1, 1, 1, 1]


def test_rank_counts_the_greater_ones():
    assert rank_of(torch.tensor([[3.0, 1.0, 2.0]]).expand(3, 3), torch.arange(3)).tolist() == [0, 2, 1]


# --- the teacher's head ---


class Passes:
    """Rotated embeddings are a fixed map of the plain ones, under noise that is another in each epoch."""

    def __init__(self):
        self.numbers = []
        self.mix = [logits(SIZE, SIZE, seed, dtype=torch.float32) for seed in range(4)]

    def epoch(self, number):
        self.numbers.append(number)
        for seed in (2 * number, 2 * number + 1):
            rows = logits(4, SIZE, seed, dtype=torch.float32)
            yield batch(TARGET), model(0, [rows @ mix for mix in self.mix])


def prepared(epochs):
    passes, modules = Passes(), heads().float()
    before = {name: buffer.clone() for name, buffer in modules.teacher.named_buffers()}
    with torch.no_grad():
        METHOD.prepare(context(epochs=epochs), passes, modules)
    return passes, modules, before


def test_the_teachers_head_is_fitted_and_never_trained():
    passes, modules, before = prepared(epochs=8)
    assert passes.numbers == [0, 1]  # a quarter of the student's epochs
    after = dict(modules.teacher.named_buffers())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert not any(buffer.requires_grad for buffer in after.values())
    assert [name for name, _ in modules.named_parameters() if "teacher" in name] == []
    assert len(list(modules.parameters())) == 4


def accuracy(modules, passes):
    """The share of rotated images whose own image is the nearest."""
    hits = []
    for _, teacher in passes.epoch(99):
        turned = torch.cat([teacher[view].embedding for view in VIEWS[1:]])
        cosines = similarities(modules.teacher(turned), modules.teacher(teacher.embedding))
        hits.append((cosines.argmax(dim=1) == torch.arange(4).repeat(3)).float())
    return torch.cat(hits).mean().item()


def test_fitting_teaches_which_image_was_rotated():
    passes, modules, _ = prepared(epochs=400)
    _, untrained, _ = prepared(epochs=1)
    assert accuracy(modules, passes) > accuracy(untrained, passes) + 0.2


def test_two_steps_of_fitting_are_sgd_by_hand():
    """Momentum 0.9 and weight decay 5e-4 on all weights of the head, a rate for each epoch."""
    torch.manual_seed(0)
    head, copy = projection(SIZE).double(), projection(SIZE).double()
    copy.load_state_dict(head.state_dict())
    plain, turned = logits(2, SIZE, 0), logits(6, SIZE, 1)
    speeds = [torch.zeros_like(p) for p in copy.parameters()]
    for rate in (0.05, 0.005):
        cosines = similarities(copy(turned), copy(plain))
        loss = torch.nn.functional.cross_entropy(cosines, torch.tensor([0, 1] * 3))
        slopes = torch.autograd.grad(loss, list(copy.parameters()))
        with torch.no_grad():
            for weight, speed, slope in zip(copy.parameters(), speeds, slopes, strict=True):
                speed.mul_(0.9).add_(slope + 5e-4 * weight)
                weight.sub_(rate * speed)
    frozen = heads().teacher
    for name, weight in head.state_dict().items():
        frozen.get_buffer(name).copy_(weight)
    with torch.no_grad():
        fit(frozen, [[(plain, turned)]] * 2, (0.05, 0.005))
    for name, expected in copy.named_parameters():
        torch.testing.assert_close(frozen.get_buffer(name), expected.detach(), rtol=1e-10, atol=1e-12)


def test_the_rate_falls_at_one_half_and_three_quarters(monkeypatch):
    seen = []
    monkeypatch.setattr("kdbench.methods.sskd.fit", lambda head, passes, rates: seen.extend(rates))
    METHOD.prepare(context(epochs=240), Passes(), heads())
    assert seen == pytest.approx([0.05] * 30 + [0.005] * 15 + [0.0005] * 15)
