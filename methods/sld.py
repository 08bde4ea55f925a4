"""Swapped logit distillation: where a model is wrong, the values of its top class and of the label change places.

B samples, C classes; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl, swap_top
from kdbench.method import Method, Needs
from kdbench.registry import register

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def pooled_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Sum of T^2 KL(teacher || student) over the temperatures 1 to 6."""
    return torch.stack([soft_kl(student_logits, teacher_logits, t) for t in TEMPERATURES]).sum()


@register
class SLD(Method):
    """Swapped logit distillation (Limantoro et al., Multimedia Systems 2025, arXiv:2504.20108).

    Equation: L = sum over both views of ce_weight CE + kd_weight sum_{T=1..6} T^2 [KL(swap(t) || s) + (epoch >
    second_after) KL(swap(s) || s)]; swap exchanges the logits of the top class and of the label.
    fidelity: code.
    Deviations: none. The second teacher, the student's own swapped logits, is not detached, as released;
    detach=True does that. `kd_twoview` is the fair control: both views, no swap.
    """

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": ("kd", "self")}
    ablate: ClassVar = {"detach": (True,)}

    # the release's CIFAR-100 configuration; ImageNet resnet34 -> resnet18: weights 0.5/0.5
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    second_after: int = 150  # reference epochs
    detach: bool = False

    def loss(self, batch, student, teacher, modules):
        pairs = [(student[v].logits, teacher[v].logits) for v in self.needs.views]
        second = float(batch.epoch > self.second_after)
        own = [(s, swap_top(s.detach() if self.detach else s, batch.target)) for s, _ in pairs]
        return {
            "ce": self.ce_weight * sum(cross_entropy(s, batch.target) for s, _ in pairs),
            "kd": self.kd_weight * sum(pooled_kl(s, swap_top(t, batch.target)) for s, t in pairs),
            "self": second * self.kd_weight * sum(pooled_kl(s, swapped) for s, swapped in own),
        }
