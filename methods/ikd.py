"""Intra-class distillation: beside each sample's own target, the mean of the teacher's logits over its class.

B samples, C classes; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl, warmup
from kdbench.method import Method
from kdbench.methods.dkd import dkd_terms
from kdbench.registry import register


class ClassMeans(nn.Module):
    """The teacher's mean logits of each class: ``means`` [C, C], one row per class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, classes))

    def set(self, sums: Tensor, counts: Tensor) -> None:
        """From the sums [C, C] and numbers [C] of samples; a class without a sample gets even logits."""
        self.means.copy_(sums / counts.clamp(min=1)[:, None])


@register
class IKD(Method):
    """Intra-class knowledge distillation, IKD (AAAI 2025, authors and arXiv id not verified).

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) (alpha TCKD + beta NCKD) + intra_weight tau^2 mean_i
    KL(softmax(m_{y_i}/tau) || softmax(s_i/tau)), m_c the mean of the teacher's logits over class c; TCKD, NCKD as dkd.
    fidelity: code.
    Deviations: the means are those of the unaugmented training set, taken once before training; the release
    sums them over the first epoch's augmented batches, in which the term is off.
    """

    weights: ClassVar = {"ce_weight": "ce", "alpha": "tckd", "beta": "nckd", "intra_weight": "intra"}
    zero_at_match: ClassVar = ("tckd", "nckd")
    positive: ClassVar = ("temperature", "tau")

    # the release's example with dkd
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    warmup_epochs: int = 20
    intra_weight: float = 6.5
    tau: float = 1.0
    ce_weight: float = 1.0

    def build(self, context):
        return ClassMeans(context.num_classes)

    def prepare(self, context, teacher_batches, modules):
        sums = torch.zeros_like(modules.means)
        counts = torch.zeros_like(sums[0])
        for batch, teacher in teacher_batches:
            sums.index_add_(0, batch.target, teacher.logits.to(sums.dtype))
            counts.index_add_(0, batch.target, torch.ones_like(batch.target, dtype=sums.dtype))
        modules.set(sums, counts)

    def loss(self, batch, student, teacher, modules):
        tckd, nckd = dkd_terms(student.logits, teacher.logits, batch.target, self.temperature)
        ramp = warmup(batch.epoch, self.warmup_epochs)
        means = modules.means[batch.target].to(student.logits.dtype)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "tckd": ramp * self.alpha * tckd.mean(),
            "nckd": ramp * self.beta * nckd.mean(),
            "intra": self.intra_weight * soft_kl(student.logits, means, self.tau),
        }
