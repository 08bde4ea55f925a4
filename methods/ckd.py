"""Contrastive logit distillation: a sample's student logits should be the closest to its teacher logits."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def logit_infonce(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """-mean_i log [exp(cos(t_i, s_i)/T) / sum_j exp(cos(t_i, s_j)/T)].

    >>> logit_infonce(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.3133)
    """
    cosine = normalize(teacher_logits, dim=1) @ normalize(student_logits, dim=1).T
    return cross_entropy(cosine / temperature, torch.arange(len(cosine), device=cosine.device))


@register
class CKD(Method):
    """Contrastive distillation of logits, sample by sample.

    Equation: L = ce_weight CE - kd_weight mean_i log [exp(cos(t_i, s_i)/T) / sum_j exp(cos(t_i, s_j)/T)].

    Deviations: none known in the loss. The release trains 480 epochs with a cosine schedule; here the suite's
    recipe applies, as to every other method.
    """

    paper = Paper(
        title="CKD: Contrastive Knowledge Distillation from A Sample-wise Perspective",
        authors=("Wencheng Zhu", "Xin Zhou", "Pengfei Zhu", "Yu Wang", "Qinghua Hu"),
        year=2024,
        arxiv="2404.14109",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(0.25, 4.0),
        "kd_weight": log_range(10, 1000),
    }

    coupled: ClassVar[bool] = True
    shift_invariant: ClassVar[bool] = False  # cosines of raw logits
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "contrast"}
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 settings
    temperature: float = 1.0
    kd_weight: float = 100.0
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "contrast": self.kd_weight * logit_infonce(student.logits, teacher.logits, self.temperature),
        }
