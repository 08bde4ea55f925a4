"""Information-theoretic representation distillation: correlation per dimension, similarity per sample.

B samples, D size of the teacher's embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.losses import gram
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def standard(embedding: Tensor) -> Tensor:
    """Standardise the columns by mean and unbiased deviation; a constant one is 0 without a gradient.

    >>> standard(torch.tensor([[1.0], [3.0]]))
    tensor([[-0.7071],
            [ 0.7071]])
    """
    centred = embedding - embedding.mean(dim=0)
    variance = centred.square().sum(dim=0) / (len(embedding) - 1)
    constant = variance == 0
    return torch.where(constant, 0.0, centred / torch.where(constant, 1.0, variance).sqrt())


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """log2 sum_d |c_d - 1|^(2 alpha), c_d the correlation of dimension d over the batch; [B, D] each.

    As released, c_d divides the sum of unbiasedly standardised products by B, not by B - 1.

    >>> correlation_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[3.0], [1.0]]), alpha=1.0)
    tensor(1.1699)
    """
    correlation = (standard(student) * standard(teacher)).mean(dim=0)
    return (correlation - 1).square().pow(alpha).sum().log2()


def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Elementwise sum (G_s^2 - (G_s G_t)^2) of cosines [B, B]; G_s and G_s G_t are divided by their traces.

    >>> mutual_loss(torch.ones(2, 2), torch.eye(2))
    tensor(0.5000)
    """
    own, other = gram(unit(student)), gram(unit(teacher))
    joint = own * other
    tiny = torch.finfo(own.dtype).tiny
    own, joint = (g / g.diagonal().sum().clamp(min=tiny) for g in (own, joint))
    return (own.square() - joint.square()).sum()


@register
class ITRD(PlusKD):
    """Information-theoretic distillation: match correlations per dimension and similarities per pair of samples.

    Equation: L = ce_weight CE + kd_weight T^2 KL + correlation_weight log2 sum_d |c_d - 1|^(2 alpha) +
    mutual_weight sum_ij [(G^s_ij)^2 - (G^s_ij G^t_ij)^2], c_d the correlation of dimension d of W f^s and f^t
    over the batch, G cosines between samples, G^s and G^s G^t divided by their traces.

    Deviations: a dimension that is constant in the batch has correlation 0 (0/0 in the released code). As
    released, G^s is of W f^s where the sizes differ and of f^s itself where they agree.
    """

    paper = Paper(
        title="Information Theoretic Representation Distillation",
        authors=("Roy Miles", "Adrian Lopez Rodriguez", "Krystian Mikolajczyk"),
        venue="BMVC",
        year=2022,
        arxiv="2112.00459",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "correlation_weight": log_range(0.2, 20),
        "mutual_weight": log_range(0.1, 10),
        "alpha": linear_range(1.01, 2.0),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    weights: ClassVar = {
        "ce_weight": "ce",
        "correlation_weight": "correlation",
        "mutual_weight": "mutual",
    }
    positive: ClassVar = ("kd_temperature", "alpha")

    # the release's example, wrn_40_2 to wrn_16_2; between different architectures alpha is 1.5 and
    # mutual_weight 0.05
    correlation_weight: float = 2.0
    mutual_weight: float = 1.0
    alpha: float = 1.01

    def build(self, context: Context) -> nn.Linear:
        return nn.Linear(context.student.embedding_size, context.teacher.embedding_size)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Linear) -> Terms:
        own, other = student.embedding, teacher.embedding
        projected = modules(own)
        similar = own if own.shape[1] == other.shape[1] else projected
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "correlation": self.correlation_weight * correlation_loss(projected, other, self.alpha),
            "mutual": self.mutual_weight * mutual_loss(similar, other),
        }
