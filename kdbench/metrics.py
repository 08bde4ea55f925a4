"""Measure a trained student: from logits [N, C] and targets [N] to numbers. Percentages are 0..100.

N evaluated samples, C classes. Always fp32, eval mode, the unaugmented images of the evaluation split.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kdbench.data.batches import Feed
from kdbench.utils.calibration import BINS, expected_calibration_error
from kdbench.utils.precision import tensor_cores

BATCH = 500


@torch.no_grad()
def predictions(predict: Callable[[Tensor], Tensor], evaluation: Feed) -> Tensor:
    """Return the logits [N, C] of ``predict(images in 0..1)`` over a whole set, in its order, in fp32."""
    with tensor_cores("fp32"):
        return torch.cat([predict(images).float() for _, _, images in evaluation.plain(BATCH)])


def top_k(logits: Tensor, targets: Tensor, k: int) -> float:
    """Return the percentage of samples whose target is among the ``k`` largest logits; a ``k`` above C counts as C."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return _percent((best == targets[:, None]).any(dim=1))


def _percent(hits: Tensor) -> float:
    """Return the percentage of true values in ``hits``, bool [N]; equal counts give equal numbers."""
    return 100.0 * int(hits.sum()) / len(hits)


def calibration(logits: Tensor, targets: Tensor) -> np.ndarray:
    """Return [15, 3]: samples, sum of confidences and correct samples per equal-width bin of top-1 confidence."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    values = torch.stack([torch.ones_like(confidence), confidence, (predicted == targets).float()], dim=1)
    table = torch.zeros(BINS, 3, dtype=torch.float64, device=logits.device)
    return table.index_add(0, bins, values.double()).cpu().numpy()


def quality(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Return top1 and top5 (percent), nll (nats) and ece (percentage points)."""
    return {
        "top1": top_k(logits, targets, 1),
        "top5": top_k(logits, targets, 5),
        "nll": torch.nn.functional.cross_entropy(logits.double(), targets).item(),
        "ece": expected_calibration_error(calibration(logits, targets)),
    }


def fidelity(logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    """Compare a student with its teacher, logits [N, C] each.

    agree_teacher is the percentage of samples with the teacher's top-1 class; kl_teacher is the mean
    KL(teacher || student) at temperature 1, in nats.
    """
    student, teacher = logits.double().log_softmax(dim=1), teacher_logits.double().log_softmax(dim=1)
    return {
        "agree_teacher": _percent(logits.argmax(dim=1) == teacher_logits.argmax(dim=1)),
        "kl_teacher": (teacher.exp() * (teacher - student)).sum(dim=1).mean().item(),
    }


def class_means(logits: Tensor, targets: Tensor) -> np.ndarray:
    """Return [C, C]: row c is the mean probability vector of the samples of class c (0 if there are none)."""
    classes = logits.shape[1]
    sums = torch.zeros(classes, classes, dtype=torch.float64, device=logits.device)
    sums.index_add_(0, targets, logits.double().softmax(dim=1))
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).cpu().numpy()


def details(logits: Tensor, targets: Tensor, teacher_logits: Tensor | None) -> dict[str, np.ndarray]:
    """Return the arrays of a details file: confusion [C, C] (rows are targets), calibration [15, 3], class means."""
    classes = logits.shape[1]
    pairs = targets * classes + logits.argmax(dim=1)
    arrays = {
        "confusion": torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu().numpy(),
        "calibration": calibration(logits, targets),
        "student_class_means": class_means(logits, targets),
    }
    if teacher_logits is not None:
        arrays["teacher_class_means"] = class_means(teacher_logits, targets)
    return arrays
