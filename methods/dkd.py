"""Decoupled knowledge distillation: KL split into target against rest, and the classes within the rest.

B samples, C classes, T temperature; logits are [B, C].
"""

from dataclasses import field
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, split_target, standardize, warmup
from kdbench.method import Method
from kdbench.registry import register


def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Per sample: T^2 KL of (p_y, 1 - p_y) and T^2 KL of the other classes renormalised -> [B], [B].

    Differentiable in both logits and the temperature.
    """
    student_binary, student_rest = split_target(student_logits / temperature, target)
    teacher_binary, teacher_rest = split_target(teacher_logits / temperature, target)
    scale = temperature**2
    return scale * kl(student_binary, teacher_binary), scale * kl(student_rest, teacher_rest)


@register
class DKD(Method):
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv:2203.08679, eq. 7).

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) (alpha TCKD + beta NCKD),
    TCKD = T^2 mean_i KL((p_y, 1-p_y)^t || (p_y, 1-p_y)^s), NCKD = T^2 mean_i KL(q^t || q^s), q = p without
    class y.
    fidelity: paper.
    Deviations: the target column is dropped where the released code subtracts 1000 from it, and 1 - p_y is a
    log-sum-exp: same value, no NaN at large logits. With C = 2 NCKD is 0. `standardize` is LSKD's
    (arXiv:2403.01427).
    """

    weights: ClassVar = {"ce_weight": "ce", "alpha": "tckd", "beta": "nckd"}
    zero_at_match: ClassVar = ("tckd", "nckd")
    positive: ClassVar = ("temperature",)

    # mdistiller, CIFAR-100; beta is 8 for resnet32x4 teachers, 6 for wrn and vgg, 2 for resnet56 and
    # resnet110
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    warmup_epochs: int = 20
    ce_weight: float = 1.0
    standardize: bool = field(default=False, metadata={"neutral": False})

    def loss(self, batch, student, teacher, modules):
        logits = (student.logits, teacher.logits)
        pair = map(standardize, logits) if self.standardize else logits
        tckd, nckd = dkd_terms(*pair, batch.target, self.temperature)
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "tckd": ramp * self.alpha * tckd.mean(),
            "nckd": ramp * self.beta * nckd.mean(),
        }
