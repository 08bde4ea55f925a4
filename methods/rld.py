"""Refined logit distillation: the teacher's mistakes are left out.

B samples, C classes, T temperature; logits are [B, C].
"""

from dataclasses import field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, split_target, standardize, warmup
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def confidence_kl(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float
) -> Tensor:
    """T^2 KL of the teacher's (max p, 1 - max p) from the student's (p_y, 1 - p_y), per sample -> [B].

    >>> confidence_kl(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log(), torch.tensor([0]), 1.0)
    tensor([0.1308])
    """
    student, _ = split_target(student_logits / temperature, target)
    teacher, _ = split_target(teacher_logits / temperature, teacher_logits.argmax(dim=1))
    return temperature**2 * kl(student, teacher)


def masked_kl(student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL over the classes that the teacher ranks below the target, renormalised, per sample -> [B].

    0 where there is no such class.

    >>> teacher = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> masked_kl(torch.zeros(1, 3), teacher, torch.tensor([0]), 1.0)
    tensor([0.0201])
    """
    kept = teacher_logits < teacher_logits.gather(1, target[:, None])
    pool = kept | ~kept.any(dim=1, keepdim=True)  # an empty pool would give log 0
    log_probs = []
    for z in (student_logits / temperature, teacher_logits / temperature):
        normaliser = z.masked_fill(~pool, -torch.inf).logsumexp(dim=1, keepdim=True)
        log_probs.append(torch.where(kept, z - normaliser, 0.0))  # equal, so nothing, at the masked classes
    return temperature**2 * kl(*log_probs)


@register
class RLD(Method):
    """Refined logit distillation: leave out what the teacher gets wrong.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) (alpha SCD + beta MCD),
    SCD = T_a^2 mean_i KL((p^t_max, 1 - p^t_max) || (p^s_y, 1 - p^s_y)), MCD = T^2 mean_i KL(q^t || q^s), q
    the softmax over the classes with t_c < t_y only.

    Deviations: classes are masked exactly, where the released code subtracts 1e9, and 1 - p is a log-sum-exp:
    the same value without NaN at large logits. `standardize` is lskd's, before both terms and the choice of
    classes; the release's switch for it also sets both temperatures to 2 and multiplies alpha and beta by 9:
    standardize=true temperature=2 alpha_temperature=2 alpha=9 beta=72.
    """

    paper = Paper(
        title="Knowledge Distillation with Refined Logits",
        authors=("Wujie Sun", "Defang Chen", "Siwei Lyu", "Genlang Chen", "Chun Chen", "Can Wang"),
        venue="ICCV",
        year=2025,
        arxiv="2408.07703",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha_temperature": log_range(1.0, 16.0),
        "alpha": log_range(0.1, 10),
        "beta": log_range(0.25, 16.0),
    }

    weights: ClassVar = {"ce_weight": "ce", "alpha": "scd", "beta": "mcd"}
    zero_at_match: ClassVar = ("mcd",)  # scd is 0 only where the teacher is right
    positive: ClassVar = ("temperature", "alpha_temperature")

    # the release's CIFAR-100 configuration; its command line sets T_a = T (--same-t)
    temperature: float = 4.0
    alpha_temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    warmup_epochs: int = 20
    ce_weight: float = 1.0
    standardize: bool = field(default=False, metadata={"neutral": False})

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        logits = (student.logits, teacher.logits)
        s, t = map(standardize, logits) if self.standardize else logits
        triple = (s, t, batch.target)
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "scd": ramp * self.alpha * confidence_kl(*triple, self.alpha_temperature).mean(),
            "mcd": ramp * self.beta * masked_kl(*triple, self.temperature).mean(),
        }
