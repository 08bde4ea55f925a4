"""Improved KL: KL split into a weighted error of logit differences and a soft cross-entropy.

B samples, C classes, T temperature; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_cross_entropy, warmup
from kdbench.method import Batch, Context, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def difference_error(student_logits: Tensor, teacher_logits: Tensor, weight: Tensor) -> Tensor:
    """1/4 sum_jk w_j w_k ((t_j - t_k) - (s_j - s_k))^2, per sample -> [B]; ``weight`` [B, C].

    Computed as W/2 sum_j w_j (d_j - mean_w d)^2, d = t - s, W = sum_j w_j: C numbers per sample, not C x C.

    >>> difference_error(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
    tensor([0.5000])
    """
    gap = teacher_logits - student_logits
    total = weight.sum(dim=1, keepdim=True)
    centred = gap - (weight * gap).sum(dim=1, keepdim=True) / total
    return 0.5 * total.squeeze(1) * (weight * centred.square()).sum(dim=1)


def soft_term(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of softmax(s/T) under softmax(t/T), mean over the batch; no T^2.

    >>> soft_term(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), temperature=4.0)
    tensor(0.6931)
    """
    student, teacher = ((z / temperature).log_softmax(dim=1) for z in (student_logits, teacher_logits))
    return soft_cross_entropy(student, teacher).mean()


class ClassPrior(nn.Module):
    """The teacher's mean probabilities per class over the last full epoch; uniform in the first."""

    prior: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.full((num_classes, num_classes), 1 / num_classes))
        self.register_buffer("total", torch.zeros(num_classes, num_classes))
        self.register_buffer("count", torch.zeros(num_classes, 1))

    def add(self, probs: Tensor, target: Tensor, last: bool) -> None:
        """Add a batch; after the ``last`` one of an epoch, renew the prior. An absent class keeps its row."""
        hits = (target[:, None] == torch.arange(len(self.prior), device=target.device)).to(self.total.dtype)
        self.total += hits.T @ probs.to(self.total.dtype)  # a product, not index_add: the same sum every run
        self.count += hits.sum(dim=0)[:, None]
        if last:
            mean = self.total / self.count.clamp(min=1)
            self.prior.copy_(torch.where(self.count > 0, mean, self.prior))
            self.total.zero_()
            self.count.zero_()


@register
class DKL(Method):
    """Decoupled KL, improved: a weighted error of logit differences plus a soft cross-entropy.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1)
    [beta/(4B) sum_i sum_jk w_j w_k (D^t_jk - D^s_jk)^2 - alpha/B sum_i sum_c p^t_c log p^s_c],
    D_jk = z_j - z_k of the raw logits, p = softmax(z/T), no T^2; w = the class prior of y_i:
    the teacher's mean softmax(t/weight_temperature) over class y_i in the epoch before.

    Deviations: the double sum is computed in O(C). A class without a sample in an epoch keeps its prior (0/0 in
    the released code). class_prior=False weights by the sample's own softmax(t/weight_temperature) instead,
    the released default; at weight_temperature 100 both are nearly uniform.
    """

    paper = Paper(
        title="Decoupled Kullback-Leibler Divergence Loss",
        authors=("Jiequan Cui", "Zhuotao Tian", "Zhisheng Zhong", "Xiaojuan Qi", "Bei Yu", "Hanwang Zhang"),
        venue="NeurIPS",
        year=2024,
        arxiv="2305.13948",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "weight_temperature": log_range(10.0, 1000.0),
        "alpha": log_range(0.1, 10),
        "beta": log_range(0.5, 32.0),
    }

    weights: ClassVar = {"ce_weight": "ce", "alpha": "soft", "beta": "wmse"}
    zero_at_match: ClassVar = ("wmse",)
    positive: ClassVar = ("temperature", "weight_temperature")

    # the release's CIFAR-100 configurations; beta is 4 to 12 by pair
    temperature: float = 4.0
    weight_temperature: float = 100.0
    class_prior: bool = True
    alpha: float = 1.0
    beta: float = 8.0
    warmup_epochs: int = 20
    ce_weight: float = 1.0

    def build(self, context: Context) -> ClassPrior:
        return ClassPrior(context.num_classes)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ClassPrior) -> Terms:
        own = (teacher.logits / self.weight_temperature).softmax(dim=1)
        weight = modules.prior[batch.target] if self.class_prior else own
        error = difference_error(student.logits, teacher.logits, weight)
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "wmse": ramp * self.beta * error.mean(),
            "soft": ramp * self.alpha * soft_term(student.logits, teacher.logits, self.temperature),
        }

    def update(self, batch: Batch, student: Views, teacher: Views, modules: ClassPrior, terms: Terms) -> None:
        modules.add((teacher.logits / self.weight_temperature).softmax(dim=1), batch.target, batch.last)
