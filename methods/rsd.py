"""Redundancy suppression distillation: each projected dimension agrees with one of the teacher's and no other.

B samples, D size of the teacher's embedding.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD

EPS = 1e-5


def standardised(embedding: Tensor) -> Tensor:
    """Centre the columns of [B, D] and divide by their biased deviation + 1e-5; a constant one is 0, without gradient.

    >>> standardised(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([[-1.0000,  0.0000],
            [ 1.0000,  0.0000]])
    """
    centred = embedding - embedding.mean(dim=0)
    variance = centred.square().mean(dim=0)
    constant = variance == 0
    return torch.where(constant, 0.0, centred / (torch.where(constant, 1.0, variance).sqrt() + EPS))


def redundancy(student: Tensor, teacher: Tensor, kappa: float) -> Tensor:
    """Sum of (C - I)^2 with the entries off the diagonal times ``kappa``, C the cross-correlations [D, D].

    >>> redundancy(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]]), kappa=0.5)
    tensor(1.5000)
    """
    correlation = standardised(teacher).T @ standardised(student) / len(student)
    identity = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
    return ((correlation - identity).square() * (identity + kappa * (1 - identity))).sum()


@register
class RSD(PlusKD):
    """Redundancy suppression: cross-correlations of student and teacher dimensions become the identity.

    Equation: L = ce_weight CE + rsd_weight sum_{d,d'} w_dd' (C_dd' - [d = d'])^2, C = S(e^t)^T S(P(e^s)) / B, S the
    standardisation over the batch, w = 1 on the diagonal and kappa elsewhere, P = linear (to width times the
    student's size), BatchNorm, GELU, linear, both without bias.

    Deviations: none known. As released, the sum grows with D^2, kappa multiplies the square and 1e-5 is added to
    the deviation.
    """

    paper = Paper(
        title="Cross-Architecture Distillation Made Simple with Redundancy Suppression",
        authors=("Weijia Zhang", "Yuehao Liu", "Wu Ran", "Chao Ma"),
        venue="ICCV",
        year=2025,
        arxiv="2507.21844",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "rsd_weight": log_range(0.01, 1),
        "kappa": log_range(0.001, 0.1),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # BatchNorm in the projector
    weights: ClassVar = {"ce_weight": "ce", "rsd_weight": "rsd"}
    positive: ClassVar = ("kd_temperature", "width")

    # the release
    rsd_weight: float = 0.1
    kappa: float = 0.01
    width: int = 2

    def build(self, context: Context) -> nn.Module:
        inputs, outputs = context.student.embedding_size, context.teacher.embedding_size
        hidden = self.width * inputs
        return nn.Sequential(
            nn.Linear(inputs, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs, bias=False),
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Sequential) -> Terms:
        value = redundancy(modules(student.embedding), teacher.embedding, self.kappa)
        return {**self.task_terms(batch, student.logits, teacher.logits), "rsd": self.rsd_weight * value}
