"""A teacher whose classes are in another order is distinguished from one that is weak or untrained."""

import pytest
import torch

from kdbench.teachers.class_order import best_order_top1, chance_remark, permutation_warnings


def predictions(classes: int, count: int, right: float, seed: int = 0):
    """Logits [N, C] that are right for a share of the samples and a random class's for the rest; targets."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    targets = targets[torch.randperm(count, generator=generator)]
    guesses = torch.randint(classes, (count,), generator=generator)
    correct = torch.rand(count, generator=generator) < right
    return torch.nn.functional.one_hot(torch.where(correct, targets, guesses), classes).float(), targets


def top1(logits, targets):
    return 100 * int((logits.argmax(1) == targets).sum()) / len(targets)


@pytest.mark.parametrize("classes", [4, 12, 100])
def test_the_best_order_undoes_a_permutation(classes):
    logits, targets = predictions(classes, 40 * classes, 0.8)
    order = torch.tensor(sorted(range(classes), key=str)).flip(0)
    assert best_order_top1(logits[:, order], targets) == pytest.approx(top1(logits, targets))
    assert best_order_top1(logits, targets) == pytest.approx(top1(logits, targets))
    (line,) = permutation_warnings("t", top1(logits[:, order], targets), logits[:, order], targets)
    assert line.startswith("WARNING: t reaches ")
    assert f"but {top1(logits, targets):.2f} % with its classes in another order" in line


def test_two_classes_exchanged_among_many_right_ones():
    logits, targets = predictions(10, 400, 1.0)
    assert best_order_top1(logits[:, [1, 0, *range(2, 10)]], targets) == 100
    assert permutation_warnings("t", 80.0, logits[:, [1, 0, *range(2, 10)]], targets)


@pytest.mark.parametrize("right", [0.0, 0.05, 0.2, 0.6])
@pytest.mark.parametrize(("classes", "count"), [(2, 30), (10, 20), (10, 60), (100, 100), (100, 400)])
def test_no_order_is_offered_to_a_weak_teacher(classes, count, right):
    """Few samples per class let many an order fit by chance; ten draws each."""
    for seed in range(10):
        logits, targets = predictions(classes, count, right, seed)
        assert permutation_warnings("t", top1(logits, targets), logits, targets) == []


@pytest.mark.parametrize(
    ("top1", "classes", "remarked"),
    [
        *((0.3, 1000, True), (0.4, 1000, False), (3.0, 100, True), (16.0, 10, False), (15, 10, True)),
        *((55.0, 2, True), (56.0, 2, False), (0.0, 2, True)),
    ],
)
def test_about_chance(top1, classes, remarked):
    remark = chance_remark(top1, classes)
    assert bool(remark) is remarked
    assert not remarked or f"({100 / classes:.2f} %)" in remark
