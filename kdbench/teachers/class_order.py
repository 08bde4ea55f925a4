"""Detect a teacher whose classes are in another order than the data set's, and which therefore looks untrained."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

GAIN = 10.0  # points that another order must gain to be reported


def permutation_warnings(name: str, top1: float, logits: Tensor, targets: Tensor) -> list[str]:
    """Return a warning if another class order fits much better than ``top1`` (percent), else [].

    ``logits`` are [N, C], ``targets`` [N].
    """
    best = best_order_top1(logits, targets)
    noise = 150.0 / len(targets) ** 0.5  # three standard errors at most, in points
    if best - top1 <= max(GAIN, noise):
        return []
    return [
        f"WARNING: {name} reaches {top1:.2f} %, but {best:.2f} % with its classes in another order: most of what it "
        "takes for one class is another one here; sort the rows of its last layer as the class folders are"
    ]


def chance_remark(top1: float, classes: int) -> str:
    """Explain an accuracy (percent) that chance also reaches; '' for a higher one."""
    chance = 100.0 / classes
    if top1 > chance + min(2 * chance, 5.0):
        return ""
    return f"about what chance does ({chance:.2f} %): is it trained, or is the class order another?"


def best_order_top1(logits: Tensor, targets: Tensor) -> float:
    """Return the top-1 accuracy in percent under the class order that fits best.

    The order is fitted on one half of the samples and measured on the other, and vice versa, so that it does not gain
    from overfitting.
    """
    predicted, halves = logits.argmax(dim=1), torch.arange(len(targets)) % 2
    correct = 0
    for half in (0, 1):
        test, fit = halves == half, halves != half
        order = _order(_confusion(predicted[fit], targets[fit], logits.shape[1]))
        correct += int((torch.from_numpy(order)[predicted[test]] == targets[test]).sum())
    return 100.0 * correct / len(targets)


def _confusion(predicted: Tensor, targets: Tensor, classes: int) -> np.ndarray:
    """Return [C, C]: row c counts the targets of the samples predicted as class c."""
    pairs = predicted * classes + targets
    return pairs.bincount(minlength=classes**2).view(classes, classes).numpy()


def _order(confusion: np.ndarray) -> np.ndarray:
    """Return [C]: the data set's class for each class of the teacher, one to one; its own where counts are equal."""
    own = np.eye(len(confusion)) * 0.5  # less than one sample
    return linear_sum_assignment(confusion + own, maximize=True)[1]
