import pytest
import torch

from kdbench import registry
from kdbench.losses import soft_kl
from tests.support import naive
from tests.support.standins import batch, context, logits, step, views

TARGET = [0, 3, 1, 1, 2]


def prepared(*batches):
    """The modules after `prepare` over batches of (target, teacher logits)."""
    method = registry.create("ikd", {})
    modules = method.build(context(num_classes=4))
    passes = [(batch(target), views(method, rows)) for target, rows in batches]
    with torch.no_grad():
        method.prepare(context(num_classes=4), passes, modules)
    return modules


def test_means_agree_with_the_loop():
    rows = logits(5, 4, 1)
    modules = prepared((TARGET[:3], rows[:3]), (TARGET[3:], rows[3:]))
    for c in range(4):
        own = [row for row, y in zip(rows.tolist(), TARGET, strict=True) if y == c]
        expected = [naive.mean(column) for column in naive.transposed(own)]
        assert modules.means[c].tolist() == pytest.approx(expected, rel=1e-6)


def test_a_class_without_samples_is_even():
    assert prepared(([0, 1], logits(2, 4, 1))).means[3].tolist() == [0.0] * 4


def test_the_term_pulls_to_the_class_mean():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    modules = prepared((TARGET, teacher)).double()
    terms = step("ikd", TARGET, (student,), (teacher,), modules=modules, tau=2.0)
    expected = naive.soft_kl(student.tolist(), [modules.means[y].tolist() for y in TARGET], 2.0)
    assert terms["intra"].item() == pytest.approx(6.5 * expected, rel=1e-6)
    assert terms["intra"].item() == pytest.approx(6.5 * soft_kl(student, modules.means[TARGET], 2.0).item())


def test_without_the_term_it_is_dkd():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    ours = step("ikd", TARGET, (student,), (teacher,), epoch=10.0)
    theirs = step("dkd", TARGET, (student,), (teacher,), epoch=10.0)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])
