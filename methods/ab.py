"""Activation boundaries: which neurons fire, learned stage by stage before the labels."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, StageFacts, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import ConvReg, PlusKD, paired, pool


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared distance of s to the margin on the side of t's sign, summed and divided by B; maps before the ReLU.

    >>> boundary_loss(torch.tensor([[0.5, -2.0]]), torch.tensor([[-1.0, 1.0]]), margin=1.0)
    tensor(11.2500)
    """
    off = torch.where((teacher <= 0) & (student > -margin), student + margin, 0.0)
    on = torch.where((teacher > 0) & (student <= margin), student - margin, 0.0)
    return (off.square() + on.square()).sum() / len(student)


def connector(student: StageFacts, teacher: StageFacts) -> nn.Module:
    """The identity where the shapes agree, else a convolution to the teacher's shape with BatchNorm."""
    same = (student.channels, student.size) == (teacher.channels, teacher.size)
    return nn.Identity() if same else ConvReg(student, teacher, relu=False)


@register
class AB(PlusKD):
    """Activation boundaries: first match which of the teacher's neurons fire, then learn the labels.

    Equation: until init_epochs L = ab_weight sum_l 2^(l-n) / B sum [1(t <= 0, r > -m) (r + m)^2 +
    1(t > 0, r <= m) (r - m)^2], t and r = R(s) the maps of stages 1..n before their ReLU; then L = ce_weight
    CE + kd_weight T^2 KL.

    Deviations: both phases share the recipe's epochs, learning rate and optimiser; the release trains the
    first 30 epochs in addition, without BatchNorm updates of the student. Where the student's map is smaller
    than the teacher's, but not half its size, the teacher's is pooled. Stages are paired from the last.
    """

    paper = Paper(
        title="Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
        authors=("Byeongho Heo", "Minsik Lee", "Sangdoo Yun", "Jin Young Choi"),
        venue="AAAI",
        year=2019,
        arxiv="1811.03233",
        equation="4 and 5",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "ab_weight": log_range(0.0003, 0.03),
        "margin": log_range(0.25, 4.0),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(preact=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the connectors, in the first stage
    weights: ClassVar = {"ce_weight": "ce", "ab_weight": "ab"}
    positive: ClassVar = ("kd_temperature", "margin")

    # RepDistiller, CIFAR-100
    ab_weight: float = 0.003
    margin: float = 1.0
    init_epochs: int = 30

    def build(self, context: Context) -> nn.ModuleList:
        return nn.ModuleList(
            connector(s, t) for s, t in paired(context.student.stages, context.teacher.stages)
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleList) -> Terms:
        if batch.epoch > self.init_epochs:
            terms = self.task_terms(batch, student.logits, teacher.logits)
            return {**terms, "ab": 0.0 * terms["ce"]}
        total = 0.0
        for depth, (connect, (s, t)) in enumerate(
            zip(modules, paired(student.preact, teacher.preact), strict=True), start=1 - len(modules)
        ):
            connected = connect(s)
            total = total + 2.0**depth * boundary_loss(connected, pool(t, connected.shape[2:]), self.margin)  # type: ignore[assignment]
        total = self.ab_weight * total
        return {"ce": 0.0 * total, "kd": 0.0 * total, "ab": total}  # type: ignore[dict-item]
