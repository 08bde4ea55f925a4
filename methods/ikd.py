"""Intra-class distillation: beside dkd, the mean of the teacher's logits over the sample's class.

B samples, C classes; logits are [B, C].
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl, warmup
from kdbench.method import Batch, Context, Method, Paper, Terms, Views, log_range
from kdbench.registry import register

from .dkd import dkd_terms


class ClassMeans(nn.Module):
    """The teacher's mean logits of each class: ``means`` [C, C], one row per class."""

    means: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, classes))


@register
class IKD(Method):
    """Intra-class distillation: dkd, and the mean of the teacher's logits over the sample's class.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) (alpha TCKD + beta NCKD)
    + intra_weight tau^2 mean_i KL(softmax(m_{y_i}/tau) || softmax(s_i/tau)), m_c the mean of the teacher's
    logits over class c; TCKD and NCKD as in `dkd`.

    Deviations: the means are those of the unaugmented train set, taken once before training; the release sums
    them over the first epoch's augmented batches and adds the term from the second epoch on. A class without
    a sample has even logits.
    """

    paper = Paper(
        title="Debiased Distillation for Consistency Regularization",
        authors=("Lu Wang", "Liuchi Xu", "Xiong Yang", "Zhenhua Huang", "Jun Cheng"),
        venue="AAAI",
        year=2025,
        url="https://ojs.aaai.org/index.php/AAAI/article/view/32840",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "tau": log_range(0.25, 4.0),
        "alpha": log_range(0.1, 10),
        "beta": log_range(0.25, 16.0),
        "intra_weight": log_range(0.65, 65),
    }

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

    def build(self, context: Context) -> ClassMeans:
        return ClassMeans(context.num_classes)

    def prepare(
        self, context: Context, teacher_batches: Iterable[tuple[Batch, Views]], modules: ClassMeans
    ) -> None:
        classes = torch.arange(context.num_classes, device=modules.means.device)
        sums, counts = torch.zeros_like(modules.means), torch.zeros_like(modules.means[0])
        for batch, teacher in teacher_batches:
            hits = (batch.target[:, None] == classes).to(sums.dtype)
            sums += hits.T @ teacher.logits.to(sums.dtype)  # a product, not index_add: the same sum every run
            counts += hits.sum(dim=0)
        modules.means.copy_(sums / counts.clamp(min=1)[:, None])

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ClassMeans) -> Terms:
        tckd, nckd = dkd_terms(student.logits, teacher.logits, batch.target, self.temperature)
        ramp = warmup(batch.epoch, self.warmup_epochs)
        means = modules.means[batch.target].to(student.logits.dtype)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "tckd": ramp * self.alpha * tckd.mean(),
            "nckd": ramp * self.beta * nckd.mean(),
            "intra": self.intra_weight * soft_kl(student.logits, means, self.tau),
        }
