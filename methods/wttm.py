"""Weighted transformed teacher matching: ttm, weighted by the teacher's uncertainty."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register

from .ttm import ttm_kl


def power_sum(teacher_logits: Tensor, gamma: float) -> Tensor:
    """sum_c (p^t_c)^gamma, per sample -> [B]: for gamma < 1 from 1 (certain) to C^(1 - gamma) (uniform).

    >>> power_sum(torch.zeros(1, 4), gamma=0.5).round(decimals=4)
    tensor([2.])
    """
    return (gamma * teacher_logits.log_softmax(dim=1)).logsumexp(dim=1).exp()


@register
class WTTM(Method):
    """Weighted transformed teacher matching: ttm with more weight where the teacher is less certain.

    Equation: L = ce_weight CE + beta mean_i U_i KL(q_i || p^s_i), U = sum_c (p^t_c)^gamma, q = (p^t)^gamma /
    U, p^s at T = 1.

    Deviations: none. q and U are computed from logits: the same value, exact at large logits.
    """

    paper = Paper(
        title="Knowledge Distillation Based on Transformed Teacher Matching",
        authors=("Kaixiang Zheng", "En-Hui Yang"),
        venue="ICLR",
        year=2024,
        arxiv="2402.11148",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "gamma": log_range(0.05, 1.0),
        "beta": log_range(0.4, 40),
    }

    weights: ClassVar = {"ce_weight": "ce", "beta": "wttm"}
    positive: ClassVar = ("gamma",)

    # the release's README shows WTTM only beside CRD, vgg13 -> vgg8 on CIFAR-100; the paper tunes both per
    # pair
    gamma: float = 0.2
    beta: float = 4.0
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        divergence = ttm_kl(student.logits, teacher.logits, self.gamma)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "wttm": self.beta * (power_sum(teacher.logits, self.gamma) * divergence).mean(),
        }
