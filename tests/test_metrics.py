"""Measures against loops over samples, in numpy and plain Python."""

import math

import numpy as np
import pytest
import torch

from kdbench import metrics
from kdbench.data.batches import Resident
from kdbench.data.dataset import ImageSet

N, C = 211, 7


@pytest.fixture
def case():
    """Student logits, targets, teacher logits; class 5 is absent, and predicted now and then."""
    draw = np.random.default_rng(0)
    logits, teacher = draw.normal(0, 3, (N, C)), draw.normal(0, 2, (N, C))
    targets = draw.choice([0, 1, 2, 3, 4, 6], N)
    return (
        torch.tensor(logits, dtype=torch.float32),
        torch.tensor(targets),
        torch.tensor(teacher, dtype=torch.float32),
    )


def probabilities(logits):
    """[N][C], one row at a time."""
    rows = []
    for row in logits.double().tolist():
        top = max(row)
        powers = [math.exp(v - top) for v in row]
        rows.append([p / sum(powers) for p in powers])
    return rows


@pytest.mark.parametrize("k", [1, 2, 5, C])
def test_top_k_by_sorting(case, k):
    logits, targets, _ = case
    right = 0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        best = sorted(range(C), key=lambda c: -row[c])[:k]
        right += target in best
    assert metrics.top_k(logits, targets, k) == pytest.approx(100 * right / N, abs=1e-4)


def test_top_k_by_hand():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]])
    targets = torch.tensor([0, 1, 2, 2])
    assert metrics.top_k(logits, targets, 1) == 50.0
    assert metrics.top_k(logits, targets, 2) == 75.0
    assert metrics.top_k(logits, targets, 5) == 100.0  # fewer classes than 5


def test_nll_by_the_definition(case):
    logits, targets, _ = case
    expected = -sum(math.log(p[t]) for p, t in zip(probabilities(logits), targets.tolist(), strict=True)) / N
    assert metrics.quality(logits, targets)["nll"] == pytest.approx(expected, rel=1e-9)


def test_nll_is_finite_where_a_probability_underflows():
    logits = torch.tensor([[0.0, 1000.0]])
    assert metrics.quality(logits, torch.tensor([0]))["nll"] == 1000.0


def bins_by_loop(logits, targets):
    """15 bins; bin b holds confidences in [b/15, (b+1)/15), the last one 1 too."""
    confidence, predicted = logits.softmax(1).max(1)
    table = np.zeros((15, 3))
    for c, p, t in zip(confidence.tolist(), predicted.tolist(), targets.tolist(), strict=True):
        for b in range(15):
            if b / 15 <= c < (b + 1) / 15 or (b == 14 and c == 1):
                table[b] += (1, c, p == t)
    return table


def test_calibration_bins_by_a_loop(case):
    logits, targets, _ = case
    actual = metrics.calibration(logits, targets)
    assert actual.shape == (15, 3)
    assert actual == pytest.approx(bins_by_loop(logits, targets), abs=1e-6)
    assert actual[:, 0].sum() == N


def test_ece_by_a_loop_over_bins(case):
    logits, targets, _ = case
    expected = 0.0
    for count, confidence, right in bins_by_loop(logits, targets):
        if count:
            expected += count / N * abs(confidence / count - right / count)
    assert metrics.quality(logits, targets)["ece"] == pytest.approx(100 * expected, rel=1e-6)


def test_ece_by_hand():
    """Two samples of confidence 0.8, one right: |0.8 - 0.5|; one of confidence 1 that is wrong: 1."""
    sure = torch.tensor([[100.0, 0.0]])
    likely = torch.tensor([[math.log(4.0), 0.0]])
    logits, targets = torch.cat([likely, likely, sure]), torch.tensor([0, 1, 1])
    assert metrics.quality(logits, targets)["ece"] == pytest.approx(100 * (2 / 3 * 0.3 + 1 / 3), rel=1e-6)
    table = metrics.calibration(logits, targets)
    assert table[12] == pytest.approx([2, 1.6, 1])
    assert table[14] == pytest.approx([1, 1, 0])


def test_perfect_predictions_have_perfect_numbers():
    logits = torch.eye(6) * 200
    expected = {"top1": 100.0, "top5": 100.0, "nll": 0.0, "ece": 0.0}
    assert metrics.quality(logits, torch.arange(6)) == pytest.approx(expected, abs=1e-9)


def test_agreement_and_kl_by_a_loop(case):
    logits, _, teacher = case
    same, divergence = 0, 0.0
    for s, t in zip(probabilities(logits), probabilities(teacher), strict=True):
        same += s.index(max(s)) == t.index(max(t))
        divergence += sum(q * math.log(q / p) for q, p in zip(t, s, strict=True))
    actual = metrics.fidelity(logits, teacher)
    assert actual["agree_teacher"] == pytest.approx(100 * same / N, abs=1e-4)
    assert actual["kl_teacher"] == pytest.approx(divergence / N, rel=1e-9)


def test_fidelity_to_itself_and_the_direction_of_kl(case):
    logits, _, teacher = case
    assert metrics.fidelity(teacher, teacher) == {"agree_teacher": 100.0, "kl_teacher": 0.0}
    forward = metrics.fidelity(logits, teacher)["kl_teacher"]
    backward = metrics.fidelity(teacher, logits)["kl_teacher"]
    assert abs(forward - backward) > 0.1
    # by hand: teacher (1/2, 1/2), student (3/4, 1/4): KL(t || s) = ln(2 / sqrt(3))
    student = torch.tensor([[math.log(3.0), 0.0]])
    assert metrics.fidelity(student, torch.zeros(1, 2))["kl_teacher"] == pytest.approx(
        math.log(2 / math.sqrt(3)), rel=1e-6
    )


def test_kl_is_finite_for_extreme_logits():
    extreme = torch.tensor([[1e4, -1e4, 0.0]])
    assert metrics.fidelity(extreme, -extreme)["kl_teacher"] == pytest.approx(2e4)
    assert metrics.fidelity(extreme, extreme)["kl_teacher"] == 0.0


def test_confusion_by_a_loop(case):
    logits, targets, _ = case
    expected = np.zeros((C, C), dtype=int)
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        expected[target][row.index(max(row))] += 1
    actual = metrics.details(logits, targets, None)["confusion"]
    assert (actual == expected).all()
    assert (actual[5] == 0).all()
    assert actual[:, 5].sum() > 0


def test_class_means_by_a_loop_with_an_absent_class(case):
    logits, targets, _ = case
    expected = np.zeros((C, C))
    for c in range(C):
        rows = [p for p, t in zip(probabilities(logits), targets.tolist(), strict=True) if t == c]
        if rows:
            expected[c] = np.mean(rows, axis=0)
    actual = metrics.class_means(logits, targets)
    assert actual == pytest.approx(expected, abs=1e-9)
    assert (actual[5] == 0).all()
    assert actual.sum(axis=1) == pytest.approx([1, 1, 1, 1, 1, 0, 1])


def test_details_of_student_and_teacher_are_their_own(case):
    logits, targets, teacher = case
    actual = metrics.details(logits, targets, teacher)
    assert set(actual) == {"confusion", "calibration", "student_class_means", "teacher_class_means"}
    assert actual["teacher_class_means"] == pytest.approx(metrics.class_means(teacher, targets))
    assert actual["student_class_means"] == pytest.approx(metrics.class_means(logits, targets))
    assert "teacher_class_means" not in metrics.details(logits, targets, None)


@pytest.mark.parametrize("count", [1, metrics.BATCH - 1, metrics.BATCH, 2 * metrics.BATCH + 3])
def test_predictions_cover_the_set_in_its_order(count):
    """Whatever the number of chunks: sample i's logits are in row i, images in 0..1 and channels first."""
    images = torch.randint(0, 256, (count, 2, 3, 3), dtype=torch.uint8)
    chunks = []

    def predict(batch):
        chunks.append(len(batch))
        return batch.mean((2, 3))

    samples = ImageSet(images, torch.zeros(count, dtype=torch.int64))
    actual = metrics.predictions(predict, Resident(samples, torch.device("cpu")))
    expected = images.numpy().astype(np.float64).mean((1, 2)) / 255
    assert actual.numpy() == pytest.approx(expected, abs=1e-6)
    assert sum(chunks) == count
    assert max(chunks) <= metrics.BATCH


def test_predictions_keep_no_graph():
    weight = torch.ones(3, requires_grad=True)
    samples = ImageSet(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    feed = Resident(samples, torch.device("cpu"))
    assert not metrics.predictions(lambda x: x.mean((2, 3)) * weight, feed).requires_grad
