"""Knowledge distillation: the student matches the teacher's softened class probabilities."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


@register
class KD(Method):
    """Knowledge distillation: match the teacher's softened class probabilities.

    Equation: L = ce_weight CE + kd_weight T^2 mean_i KL(softmax(t_i/T) || softmax(s_i/T)).

    Deviations: KL in place of the paper's cross-entropy; they differ by the teacher's entropy, which has no
    gradient.
    """

    paper = Paper(
        title="Distilling the Knowledge in a Neural Network",
        authors=("Geoffrey Hinton", "Oriol Vinyals", "Jeff Dean"),
        venue="NIPS Deep Learning Workshop",
        year=2014,
        arxiv="1503.02531",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
    }

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    temperature: float = 4.0  # CIFAR-100: RepDistiller and mdistiller; ImageNet: T 1, weights 0.5/0.5
    ce_weight: float = 0.1
    kd_weight: float = 0.9

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(student.logits, teacher.logits, self.temperature),
        }
