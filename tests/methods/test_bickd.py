"""No reference code exists: the reconstruction is held against loops and hand values."""

import itertools
from math import exp, log

import pytest
import torch

from kdbench.methods.bickd import bickd_terms, cosines
from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 3]  # class 2 and 4 are absent


def loop_contrast(student, teacher, positives, negatives, form, k, lam):
    """student, teacher: lists of vectors; positives[i], negatives[i]: lists of places."""
    pairs = [(i, j) for i, js in positives.items() for j in js]
    apart = [(i, j) for i in positives for j in negatives[i]]
    m = {(i, j): naive.cosine(student[i], teacher[j]) for i, j in pairs + apart}
    if form == "identity":
        pull = naive.mean((1 - m[pair]) ** 2 for pair in pairs)
        return pull + lam * (naive.mean(m[pair] ** 2 for pair in apart) if apart else 0.0)
    rows = []
    for i, own in positives.items():
        pool = sum(exp(m[i, j] / k) for j in own + negatives[i])
        rows.append(naive.mean(-log(exp(m[i, j] / k) / pool) for j in own))
    return naive.mean(rows)


def loop(student, teacher, target, tau_c, k, form, positives, lam):
    s, t = ([naive.softmax(row, tau_c) for row in x.tolist()] for x in (student, teacher))
    every = range(len(target))
    own = {
        i: [j for j in every if j == i or (positives == "label" and target[i] == target[j])] for i in every
    }
    others = {i: [j for j in every if target[i] != target[j]] for i in every}
    present = sorted(set(target))
    sample = loop_contrast(s, t, own, others, form, k, lam)
    own = {c: [c] for c in present}
    others = {c: [d for d in present if d != c] for c in present}
    return sample, loop_contrast(naive.transposed(s), naive.transposed(t), own, others, form, k, lam)


@pytest.mark.parametrize(
    ("form", "positives", "tau_c", "k"),
    list(itertools.product(("infonce", "identity"), ("instance", "label"), (1.0, 4.0), (0.1, 0.5))),
)
def test_agrees_with_the_loop(form, positives, tau_c, k):
    student, teacher = logits(5, 5, 0), logits(5, 5, 1)
    switches = {"tau_c": tau_c, "k": k, "form": form, "positives": positives, "lam": 0.7}
    found = bickd_terms(student, teacher, torch.tensor(TARGET), **switches)
    expected = loop(student, teacher, TARGET, **switches)
    assert [value.item() for value in found] == pytest.approx(expected, rel=1e-10)


def test_the_terms_are_weighted_and_the_axes_switch_them():
    student, teacher = logits(5, 5, 0), logits(5, 5, 1)
    sample, classes = loop(student, teacher, TARGET, 4.0, 0.1, "infonce", "instance", 1.0)
    for axes, expected in (
        ("both", (4 * sample, 2 * classes)),
        ("sample", (4 * sample, 0)),
        ("class", (0, 2 * classes)),
    ):
        found = step("bickd", TARGET, (student,), (teacher,), axes=axes, beta_class=2)
        assert [found["sample"].item(), found["class"].item()] == pytest.approx(expected, rel=1e-10)
        kd = step("kd", TARGET, (student,), (teacher,))
        assert (found["ce"], found["kd"]) == (kd["ce"], kd["kd"])


@pytest.mark.parametrize("form", ["infonce", "identity"])
def test_by_hand_on_one_hot_predictions(form):
    # three samples of three classes, predicted with certainty: all vectors are orthogonal, cosines are the
    # identity
    certain = 1e3 * torch.eye(3, dtype=torch.float64)
    sample, classes = bickd_terms(certain, certain, torch.arange(3), 1.0, 0.5, form)
    expected = log(1 + 2 * exp(-2)) if form == "infonce" else 0.0
    assert [sample.item(), classes.item()] == pytest.approx([expected] * 2, abs=1e-12)


@pytest.mark.parametrize(("form", "expected"), [("infonce", log(3)), ("identity", 1.0)])
def test_by_hand_on_even_predictions(form, expected):
    # every vector has the same direction: no pair can be told apart, nothing is orthogonal
    even = torch.zeros(3, 3, dtype=torch.float64)
    found = bickd_terms(even, even, torch.arange(3), 1.0, 0.5, form)
    assert [value.item() for value in found] == pytest.approx([expected] * 2, abs=1e-12)


def test_same_label_rows_are_no_negatives():
    student, teacher = logits(3, 4, 0), logits(3, 4, 1)
    sample, _ = bickd_terms(student, teacher, torch.tensor([2, 2, 2]))
    assert sample.item() == 0.0


def test_positives_agree_where_all_labels_differ():
    student, teacher, target = logits(4, 6, 0), logits(4, 6, 1), torch.tensor([5, 0, 2, 1])
    one, other = (bickd_terms(student, teacher, target, positives=p)[0] for p in ("instance", "label"))
    torch.testing.assert_close(one, other)


def test_absent_classes_take_no_part():
    student, teacher, target = logits(4, 6, 0), logits(4, 6, 1), torch.tensor([0, 1, 2, 0])
    one = bickd_terms(student, teacher, target)[1]
    swap = [0, 1, 2, 5, 3, 4]  # probabilities of absent classes may change hands
    other = bickd_terms(student[:, swap], teacher, target)[1]
    torch.testing.assert_close(one, other)


def test_cosines_survive_vanishing_probabilities():
    student = (1e4 * logits(5, 5, 0, dtype=torch.float32)).requires_grad_()
    found = step("bickd", TARGET, (student,), (1e4 * logits(5, 5, 1, dtype=torch.float32),))
    sum(found.values()).backward()
    assert student.grad.isfinite().all()
    tiny = torch.full((2, 3), -1e3, dtype=torch.float32)  # exp(-1000) is 0 in every dtype
    torch.testing.assert_close(cosines(tiny, tiny), torch.ones(2, 2))
