"""Probabilistic knowledge transfer: each sample's neighbours as a distribution over the batch."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.losses import gram
from kdbench.method import Batch, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD

EPS = 1e-7  # as released, in the norm and in the logarithm


def neighbours(embedding: Tensor) -> Tensor:
    """(1 + cosine) / 2, rows divided by their sum -> [B, B]; a zero embedding has cosine 0 to all.

    >>> neighbours(torch.eye(2))
    tensor([[0.6667, 0.3333],
            [0.3333, 0.6667]])
    """
    squares = embedding.square().sum(dim=1, keepdim=True)
    zero = squares == 0
    norm = torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
    near = (gram(embedding / (norm + EPS)) + 1) / 2
    return near / near.sum(dim=1, keepdim=True)


def pkt_loss(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Mean over all B^2 entries of P_t log((P_t + EPS) / (P_s + EPS)).

    >>> pkt_loss(torch.eye(2), torch.ones(2, 2))
    tensor(0.0294)
    """
    student, teacher = neighbours(student_embedding), neighbours(teacher_embedding)
    return (teacher * ((teacher + EPS) / (student + EPS)).log()).mean()


@register
class PKT(PlusKD):
    """Probabilistic knowledge transfer: match each sample's distribution of neighbours in the batch.

    Equation: L = ce_weight CE + kd_weight T^2 KL + pkt_weight / B^2 sum_ij P^t_ij log(P^t_ij / P^s_ij),
    P = (1 + cosine of embeddings) / 2, rows divided by their sum.

    Deviations: as in all released code, a mean over B^2 in place of the paper's sum; hence the weight. The
    diagonal is included. A zero embedding has no gradient (NaN in released code).
    """

    paper = Paper(
        title="Learning Deep Representations with Probabilistic Knowledge Transfer",
        authors=("Nikolaos Passalis", "Anastasios Tefas"),
        venue="ECCV",
        year=2018,
        arxiv="1803.10837",
        equation="7",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "pkt_weight": log_range(3000, 300000),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    zero_at_match: ClassVar = ("pkt",)
    weights: ClassVar = {"ce_weight": "ce", "pkt_weight": "pkt"}
    positive: ClassVar = ("kd_temperature",)

    pkt_weight: float = 30000.0  # RepDistiller and mdistiller, CIFAR-100

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        near = pkt_loss(student.embedding, teacher.embedding)
        return {**self.task_terms(batch, student.logits, teacher.logits), "pkt": self.pkt_weight * near}
