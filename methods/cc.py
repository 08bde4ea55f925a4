"""Correlation congruence: how the samples of a batch relate to each other.

B samples, D embedding size.
"""

from math import exp, factorial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench.losses import gram
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def neighbour_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_d |s - t|_id |s - t|_i+1,d, averaged over neighbours i, i+1 in the batch.

    >>> neighbour_loss(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2))
    tensor(11.)
    """
    gap = (student - teacher).abs()
    return (gap[:-1] * gap[1:]).sum(dim=1).mean()


def kernel_matrix(embedding: Tensor, gamma: float, order: int) -> Tensor:
    """exp(-gamma |x - y|^2) of unit vectors as its Taylor sum in <x, y> up to ``order`` -> [B, B].

    >>> kernel_matrix(torch.eye(2), gamma=0.4, order=2)
    tensor([[0.9526, 0.4493],
            [0.4493, 0.9526]])
    """
    cosine = gram(unit(embedding))
    powers = (exp(-2 * gamma) * (2 * gamma) ** p / factorial(p) * cosine**p for p in range(order + 1))
    return torch.stack(list(powers)).sum(dim=0)


@register
class CC(PlusKD):
    """Correlation congruence: match how the samples of a batch relate to each other.

    Equation: L = ce_weight CE + kd_weight T^2 KL + cc_weight l, with form="code" l = mean_i sum_d
    |D_i|_d |D_i+1|_d, D = W_s f^s - W_t f^t (both learned, i in the order of the batch); with form="paper"
    l = mean_ij (K^s_ij - K^t_ij)^2, K the Taylor sum of a Gaussian kernel on unit embeddings.

    Deviations: the default is the form that the authors gave RepDistiller, which is a different loss from the
    paper's.
    """

    paper = Paper(
        title="Correlation Congruence for Knowledge Distillation",
        authors=(
            "Baoyun Peng",
            "Xiao Jin",
            "Jiaheng Liu",
            "Dongsheng Li",
            "Yichao Wu",
            "Yu Liu",
            "Shunfeng Zhou",
            "Zhaoning Zhang",
        ),
        venue="ICCV",
        year=2019,
        arxiv="1904.01802",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "cc_weight": log_range(0.002, 0.2),
        "gamma": log_range(0.1, 1.6),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    order_dependent: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    weights: ClassVar = {"ce_weight": "ce", "cc_weight": "cc"}
    positive: ClassVar = ("kd_temperature", "size", "gamma", "order")

    cc_weight: float = 0.02  # RepDistiller, CIFAR-100; for form="paper" KD-Zoo uses 100
    form: Literal["code", "paper"] = "code"
    size: int = 128  # form="code": of the learned embeddings
    gamma: float = 0.4  # form="paper"
    order: int = 2  # form="paper"

    def build(self, context: Context) -> nn.ModuleDict:
        embeds = nn.ModuleDict()
        if self.form == "code":
            embeds["student"] = nn.Linear(context.student.embedding_size, self.size)
            embeds["teacher"] = nn.Linear(context.teacher.embedding_size, self.size)
        return embeds

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleDict) -> Terms:
        if self.form == "code":
            pair = (modules["student"](student.embedding), modules["teacher"](teacher.embedding))
            relation = neighbour_loss(*pair)
        else:
            pair = (kernel_matrix(m.embedding, self.gamma, self.order) for m in (student, teacher))  # type: ignore[assignment]
            relation = mse_loss(*pair)
        return {**self.task_terms(batch, student.logits, teacher.logits), "cc": self.cc_weight * relation}
