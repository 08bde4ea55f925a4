"""Decoupled knowledge distillation: KL split into target against rest, and the classes within the rest.

B samples, C classes, T temperature; logits are [B, C].
"""

from dataclasses import field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, split_target, standardize, warmup
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Per sample: T^2 KL of (p_y, 1 - p_y) and T^2 KL of the other classes renormalised -> [B], [B].

    Differentiable in both logits and the temperature.

    >>> teacher = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> dkd_terms(torch.zeros(1, 3), teacher, torch.tensor([0]), 1.0)
    (tensor([0.0589]), tensor([0.0201]))
    """
    student_binary, student_rest = split_target(student_logits / temperature, target)
    teacher_binary, teacher_rest = split_target(teacher_logits / temperature, target)
    scale = temperature**2
    return scale * kl(student_binary, teacher_binary), scale * kl(student_rest, teacher_rest)


@register
class DKD(Method):
    """Decoupled distillation: separate weights for the target class and for the other classes.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) (alpha TCKD + beta NCKD),
    TCKD = T^2 mean_i KL((p_y, 1-p_y)^t || (p_y, 1-p_y)^s), NCKD = T^2 mean_i KL(q^t || q^s), q = p without
    class y.

    Deviations: the target column is dropped, where the released code subtracts 1000 from it, and 1 - p_y is a
    log-sum-exp: the same value without NaN at large logits. With C = 2, NCKD is 0. `standardize` is lskd's.
    """

    paper = Paper(
        title="Decoupled Knowledge Distillation",
        authors=("Borui Zhao", "Quan Cui", "Renjie Song", "Yiyu Qiu", "Jiajun Liang"),
        venue="CVPR",
        year=2022,
        arxiv="2203.08679",
        equation="7",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha": log_range(0.1, 10),
        "beta": log_range(0.25, 16.0),
    }

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

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        logits = (student.logits, teacher.logits)
        pair = map(standardize, logits) if self.standardize else logits
        tckd, nckd = dkd_terms(*pair, batch.target, self.temperature)  # type: ignore[call-arg]
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "tckd": ramp * self.alpha * tckd.mean(),
            "nckd": ramp * self.beta * nckd.mean(),
        }
