"""Transformed teacher matching: only the teacher is softened, by a power of its probabilities."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def ttm_kl(student_logits: Tensor, teacher_logits: Tensor, gamma: float) -> Tensor:
    """KL of (p^t)^gamma, renormalised, from p^s, per sample -> [B]; the power is softmax(gamma t).

    >>> ttm_kl(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log(), gamma=1.0)
    tensor([0.1308])
    """
    return kl(student_logits.log_softmax(dim=1), (gamma * teacher_logits).log_softmax(dim=1))


@register
class TTM(Method):
    """Transformed teacher matching: match a power of the teacher's probabilities; the student is not softened.

    Equation: L = ce_weight CE + beta mean_i KL(q_i || p^s_i), q = (p^t)^gamma / sum_c (p^t_c)^gamma, p^s at T
    = 1.

    Deviations: none. q is computed as softmax(gamma t): the same value, exact at large logits.
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
        "beta": log_range(4.5, 450),
    }

    weights: ClassVar = {"ce_weight": "ce", "beta": "ttm"}
    positive: ClassVar = ("gamma",)

    # the release's README, vgg13 -> vgg8 on CIFAR-100; the paper tunes both per pair
    gamma: float = 0.1
    beta: float = 45.0
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "ttm": self.beta * ttm_kl(student.logits, teacher.logits, self.gamma).mean(),
        }
