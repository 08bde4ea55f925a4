"""Weighted soft labels: they count more where the student's error is large relative to the teacher's."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_cross_entropy
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def soft_label_weight(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """1 - exp(-CE_s / CE_t) at temperature 1, without gradient, per sample -> [B] in [0, 1].

    >>> soft_label_weight(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.6321])
    """
    student, teacher = (
        cross_entropy(z.detach(), target, reduction="none") for z in (student_logits, teacher_logits)
    )
    return -(-student / (teacher + 1e-7)).expm1()


@register
class WSLD(Method):
    """Weighted soft labels: weight each sample by the student's error relative to the teacher's.

    Equation: L = ce_weight CE + alpha T^2 mean_i w_i CE(p^t_i, p^s_i), w_i = 1 - exp(-CE^s_i / CE^t_i) at T =
    1.

    Deviations: none. w has no gradient; the 1e-7 added to CE^t is the released code's.
    """

    paper = Paper(
        title="Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
        authors=(
            "Helong Zhou",
            "Liangchen Song",
            "Jiajie Chen",
            "Ye Zhou",
            "Guoli Wang",
            "Junsong Yuan",
            "Qian Zhang",
        ),
        venue="ICLR",
        year=2021,
        arxiv="2102.00650",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha": log_range(0.225, 22.5),
    }

    weights: ClassVar = {"ce_weight": "ce", "alpha": "soft"}
    positive: ClassVar = ("temperature",)
    partial_gradient: ClassVar[bool] = True  # w is a constant

    # cls_KD's defaults, for 100 classes; ImageNet: T 2, alpha 2.5
    temperature: float = 4.0
    alpha: float = 2.25
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        weight = soft_label_weight(student.logits, teacher.logits, batch.target)
        pair = ((z / self.temperature).log_softmax(dim=1) for z in (student.logits, teacher.logits))
        soft = (weight * soft_cross_entropy(*pair)).mean()
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "soft": self.alpha * self.temperature**2 * soft,
        }
