"""Whether a teacher's classes are in another order than the data set's, so that it looks untrained."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

GAIN = 10.0  # points that another order must win to be spoken of


def permuted(name: str, top1: float, logits: Tensor, targets: Tensor) -> list[str]:
    """The warning where another order of the classes fits these ``logits`` [N, C] and ``targets`` [N]; [] if none."""
    other = best_order(logits, targets)
    noise = 150.0 / len(targets) ** 0.5  # three standard errors at most, in points
    if other - top1 <= max(GAIN, noise):
        return []
    return [
        f"WARNING: {name} reaches {top1:.2f} %, but {other:.2f} % with its classes in another order: most of what it "
        "takes for one class is another one here; sort the rows of its last layer as the class folders are"
    ]


def like_chance(top1: float, classes: int) -> str:
    """What to say of an accuracy in percent that is about that of chance; nothing of others."""
    chance = 100.0 / classes
    if top1 > chance + min(2 * chance, 5.0):
        return ""
    return f"about what chance does ({chance:.2f} %): is it trained, or is the class order another?"


def best_order(logits: Tensor, targets: Tensor) -> float:
    """Top-1 in percent under the order of the classes that fits best.

    The order is found on one half of the samples and measured on the other, for both halves, so that chance wins
    nothing.
    """
    predicted, halves = logits.argmax(dim=1), torch.arange(len(targets)) % 2
    right = 0
    for half in (0, 1):
        here, there = halves == half, halves != half
        order = _order(_confusion(predicted[there], targets[there], logits.shape[1]))
        right += int((torch.from_numpy(order)[predicted[here]] == targets[here]).sum())
    return 100.0 * right / len(targets)


def _confusion(predicted: Tensor, targets: Tensor, classes: int) -> np.ndarray:
    """[C, C]: row c counts the targets of the samples that are taken for class c."""
    pairs = predicted * classes + targets
    return pairs.bincount(minlength=classes**2).view(classes, classes).numpy()


def _order(confusion: np.ndarray) -> np.ndarray:
    """[C]: the class of ours that each class of the teacher's is, one to one; its own where the counts do not say."""
    own = np.eye(len(confusion)) * 0.5  # less than one sample
    return linear_sum_assignment(confusion + own, maximize=True)[1]
