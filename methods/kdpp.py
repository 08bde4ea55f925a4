"""KD++: the student's embedding grows along the direction of its class's mean teacher embedding.

B samples, C classes, D size of the teacher's embedding.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.losses import warmup
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def norm_direction_loss(student: Tensor, teacher: Tensor, directions: Tensor) -> Tensor:
    """Mean of 1 - <s, e> / max(|s|, |t|); ``student``, ``teacher`` [B, D], ``directions`` [B, D] of length 1.

    A sample counts 1, without a gradient, where both embeddings are 0.

    >>> norm_direction_loss(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor(0.2000)
    """
    squares = torch.maximum(student.square().sum(dim=1), teacher.square().sum(dim=1))
    zero = squares == 0
    norm = torch.where(zero, 1.0, squares).sqrt()
    return (1 - (student * directions).sum(dim=1) / norm).mean()


class ClassDirections(nn.Module):
    """The teacher's class means [C, D] at length 1, and a projector where the embeddings' sizes differ."""

    directions: Tensor

    def __init__(self, num_classes: int, student_size: int, teacher_size: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(num_classes, teacher_size))
        self.project: nn.Module = nn.Identity()
        if student_size != teacher_size:
            linear = nn.Linear(student_size, teacher_size)
            nn.init.zeros_(linear.bias)
            self.project = nn.Sequential(nn.BatchNorm1d(student_size), linear)


@register
class KDPP(PlusKD):
    """KD++: push the student's embedding along the mean teacher embedding of its class.

    Equation: L = ce_weight CE + min((epoch - 1)/warmup_epochs, 1) kd_weight T^2 KL + nd_weight mean_i
    [1 - <f^s_i, e_y> / max(|f^s_i|, |f^t_i|)], e_c = the teacher's mean train embedding of class c over its
    norm.

    Deviations: the means are not rounded to four decimals. Where the sizes differ, f^s passes the release's
    BatchNorm and linear layer without its dropout. As released, the ramp counts epochs from 0: the first has
    no KL.
    """

    paper = Paper(
        title="Improving Knowledge Distillation via Regularizing Feature Norm and Direction",
        authors=("Yuzhu Wang", "Lechao Cheng", "Manni Duan", "Yongheng Wang", "Zunlei Feng", "Shu Kong"),
        year=2023,
        arxiv="2305.17007",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "kd_temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.1, 10),
        "nd_weight": log_range(0.2, 20),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the projector
    min_batch: ClassVar[int] = 2
    zero_at_match: ClassVar = ("kd",)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "nd_weight": "nd"}
    positive: ClassVar = ("kd_temperature",)

    # the release's resnet56 to resnet20; nd_weight is 0.5 to 2 and kd_weight 1 to 4 by pair
    nd_weight: float = 2.0
    kd_weight: float = 1.0
    warmup_epochs: int = 20

    def build(self, context: Context) -> ClassDirections:
        sizes = (context.student.embedding_size, context.teacher.embedding_size)
        return ClassDirections(context.num_classes, *sizes)

    def prepare(
        self, context: Context, teacher_batches: Iterable[tuple[Batch, Views]], modules: ClassDirections
    ) -> None:
        classes = torch.arange(context.num_classes, device=modules.directions.device)
        total = torch.zeros_like(modules.directions)
        for batch, teacher in teacher_batches:
            hits = (batch.target[:, None] == classes).to(total.dtype)
            total += hits.T @ teacher.embedding.to(total.dtype)
        modules.directions.copy_(unit(total))  # a sum has the direction of its mean

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ClassDirections) -> Terms:
        directions = modules.directions[batch.target]
        nd = norm_direction_loss(modules.project(student.embedding), teacher.embedding, directions)
        terms = self.task_terms(batch, student.logits, teacher.logits)
        ramp = warmup(batch.epoch - 1, self.warmup_epochs)
        return {**terms, "kd": ramp * terms["kd"], "nd": self.nd_weight * nd}
