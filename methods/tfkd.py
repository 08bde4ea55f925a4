"""Teacher-free distillation, regularised form: a virtual teacher, always right and nearly uniform."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl
from kdbench.method import Batch, Method, Needs, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register


def virtual_teacher(logits: Tensor, target: Tensor, correct: float, temperature: float) -> Tensor:
    """log softmax(u/T), u = ``correct`` at the target and (1 - correct)/(C - 1) elsewhere -> [B, C].

    >>> virtual_teacher(torch.zeros(1, 3), torch.tensor([0]), correct=0.9, temperature=1.0).exp()
    tensor([[0.5391, 0.2304, 0.2304]])
    """
    other = (1 - correct) / (logits.shape[1] - 1)
    scores = torch.full_like(logits, other).scatter(1, target[:, None], correct)
    return (scores / temperature).log_softmax(dim=1)


@register
class TfKD(Method):
    """Teacher-free distillation, regularised form: learn from a virtual teacher, always right and nearly uniform.

    Equation: L = ce_weight CE + kd_weight mean_i KL(softmax(u_i/T) || softmax(s_i)), u_i = correct at y_i,
    (1 - correct)/(C - 1) elsewhere; the paper's alpha is kd_weight = 1 - ce_weight.

    Deviations: KL is summed over classes; the release averages over them and multiplies by 100, which on
    CIFAR-100 is the same. As released, T softens the probabilities u, not their logits, and there is no T^2.
    """

    paper = Paper(
        title="Revisiting Knowledge Distillation via Label Smoothing Regularization",
        authors=("Li Yuan", "Francis E.H. Tay", "Guilin Li", "Tao Wang", "Jiashi Feng"),
        venue="CVPR",
        year=2020,
        arxiv="1909.11723",
    )
    family = "self"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 40.0),
        "kd_weight": log_range(0.01, 1),
        "correct": linear_range(0.9, 0.999),
    }

    needs: ClassVar[Needs] = Needs(teacher=False)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 settings for resnet18: reg_alpha 0.1, reg_temperature 20, multiplier 100 over
    # the mean
    temperature: float = 20.0
    correct: float = 0.99
    ce_weight: float = 0.9
    kd_weight: float = 0.1

    def loss(self, batch: Batch, student: Views, teacher: None, modules: nn.Module) -> Terms:
        made = virtual_teacher(student.logits.detach(), batch.target, self.correct, self.temperature)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * kl(student.logits.log_softmax(dim=1), made).mean(),
        }
