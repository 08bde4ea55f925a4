"""Balanced KL: forward and reverse KL, each class divided by a power of both probabilities' norm."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.method import Batch, Method, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register


def balanced_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """T^2 mean_i sum_c [a p^t - (1-a) p^s] log(p^t/p^s) / ((p^s)^2 + (p^t)^2)^((1-b)/2), p = softmax(z/T).

    alpha = 1, beta = 1 is kd's term.

    >>> balanced_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]]), 4.0, alpha=1.0, beta=1.0)
    tensor(1.7751)
    """
    student, teacher = ((z / temperature).log_softmax(dim=1) for z in (student_logits, teacher_logits))
    norm = (1 - beta) / 2 * torch.logaddexp(2 * student, 2 * teacher)
    factor = alpha * (teacher - norm).exp() - (1 - alpha) * (student - norm).exp()
    return temperature**2 * (factor * (teacher - student)).sum(dim=1).mean()


@register
class BKL(Method):
    """Balanced KL: a mixture of forward and reverse KL, rescaled per class.

    Equation: L = ce_weight CE + kd_weight T^2 mean_i sum_c [alpha p^t log(p^t/p^s) + (1-alpha) p^s
    log(p^s/p^t)] / ((p^s)^2 + (p^t)^2)^((1-beta)/2).

    Deviations: unknown against the paper, which was not available. The release names no values of alpha and
    beta: 0.5 is our guess. Computed in log space, without the released 1e-12 in the denominator.
    """

    paper = Paper(
        title="Balanced Kullback-Leibler Divergence",
        authors=(),
        year=2025,
        url="https://github.com/CKeyZhang/BKL",
        verified=False,
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
        "alpha": linear_range(0.1, 0.9),
        "beta": linear_range(0.1, 0.9),
    }

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "bkl"}
    zero_at_match: ClassVar = ("bkl",)
    positive: ClassVar = ("temperature",)

    temperature: float = 4.0  # with the next two lines: kd's, as in the release
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    alpha: float = 0.5
    beta: float = 0.5

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        divergence = balanced_kl(student.logits, teacher.logits, self.temperature, self.alpha, self.beta)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "bkl": self.kd_weight * divergence,
        }
