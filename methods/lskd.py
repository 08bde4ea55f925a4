"""Logit standardisation: KD on z-scores, so that the student need not copy the teacher's scale."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl, standardize
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


@register
class LSKD(Method):
    """Logit standardisation: kd on z-scores, so that the student need not copy the teacher's scale.

    Equation: L = ce_weight CE + kd_weight T^2 mean_i KL(softmax(Z(t_i)/T) || softmax(Z(s_i)/T)),
    Z(z) = (z - mean_c z) / (1e-7 + std_c z).

    Deviations: the std is the unbiased one, as released (probably the population's in the paper). A constant
    row has gradient 0 (about 1e7 in the released code). `standardize` applies it to dkd, mlkd and ctkd.
    """

    paper = Paper(
        title="Logit Standardization in Knowledge Distillation",
        authors=("Shangquan Sun", "Wenqi Ren", "Jingzhi Li", "Rui Wang", "Xiaochun Cao"),
        venue="CVPR",
        year=2024,
        arxiv="2403.01427",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(0.5, 8.0),
        "kd_weight": log_range(0.9, 90),
    }

    alias_of: ClassVar[str] = "kd"
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 command; tuned per pair over T 2..4 and weights 1..18
    temperature: float = 2.0
    ce_weight: float = 0.1
    kd_weight: float = 9.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        z_scores = (standardize(student.logits), standardize(teacher.logits))
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(*z_scores, self.temperature),
        }
