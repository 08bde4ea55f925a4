"""Overhaul of feature distillation: maps before the ReLU, where the teacher's values carry information."""

from math import pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, StageFacts, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, fan_out_normal, paired, pool


def margins(weight: Tensor, bias: Tensor) -> Tensor:
    """E[x | x < 0] of x ~ N(bias, weight^2), per channel; -3 |weight| where P(x < 0) <= 0.001.

    >>> margins(torch.tensor([1.0]), torch.tensor([0.0]))
    tensor([-0.7979])
    """
    scale = weight.abs()
    ratio = bias / scale.clamp(min=torch.finfo(scale.dtype).tiny)
    negative = 0.5 * torch.erfc(ratio / sqrt(2))
    density = torch.exp(-ratio.square() / 2) / sqrt(2 * pi)
    rare = negative <= 0.001
    return torch.where(rare, -3 * scale, bias - scale * density / torch.where(rare, 1.0, negative))


def partial_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """(s - max(t, margin))^2 where s is above that maximum or t > 0; summed over the map, mean over the batch.

    >>> student, teacher = (torch.tensor(m).view(1, 1, 1, 2) for m in ([1.0, -2.0], [0.5, -3.0]))
    >>> partial_loss(student, teacher, torch.tensor([-1.0]))
    tensor(0.2500)
    """
    target = torch.maximum(teacher, margin[:, None, None])
    counts = (student > target) | (teacher > 0)
    return torch.where(counts, student - target, 0.0).square().sum() / len(student)


class Connector(nn.Module):
    """Brings the student's map to the teacher's channels; holds the teacher's margins."""

    margin: Tensor

    def __init__(self, student: StageFacts, teacher: StageFacts) -> None:
        super().__init__()
        layers = nn.Sequential(conv1x1(student.channels, teacher.channels), nn.BatchNorm2d(teacher.channels))
        self.connect = fan_out_normal(layers)
        self.register_buffer("margin", margins(teacher.bn_weight.detach(), teacher.bn_bias.detach()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return partial_loss(self.connect(student), pool(teacher, tuple(student.shape[2:])), self.margin)  # type: ignore[arg-type]


@register
class OFD(PlusKD):
    """Overhaul of feature distillation: match maps before the ReLU where the teacher's values matter.

    Equation: L = ce_weight CE + kd_weight T^2 KL + ofd_weight sum_l 2^(l-n) mean_i sum [1(t > 0 or r > u)
    (r - u)^2], t and r = BN(conv1x1(s)) the maps of stages 1..n before their ReLU, u = max(t, m),
    m = E[x | x < 0] of x ~ N(beta, gamma^2) by the teacher's BatchNorm before that ReLU.

    Deviations: the teacher stays in evaluation mode; the release leaves its BatchNorm in training mode. The
    teacher's map is pooled to the student's size, as in mdistiller. Stages are paired from the last.
    """

    paper = Paper(
        title="A Comprehensive Overhaul of Feature Distillation",
        authors=("Byeongho Heo", "Jeesoo Kim", "Sangdoo Yun", "Hyojin Park", "Nojun Kwak", "Jin Young Choi"),
        venue="ICCV",
        year=2019,
        arxiv="1904.01866",
        equation="2 to 5",
    )
    family = "feature"
    fidelity = "paper"
    space = {
        "ofd_weight": log_range(0.0001, 0.01),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(preact=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the connectors
    weights: ClassVar = {"ce_weight": "ce", "ofd_weight": "ofd"}
    positive: ClassVar = ("kd_temperature",)

    ofd_weight: float = 0.001  # the release and mdistiller, CIFAR-100; ImageNet: 0.0001

    def skip(self, context: Context) -> str | None:
        stages = paired(context.student.stages, context.teacher.stages)
        if any(teacher.bn_weight is None or teacher.bn_bias is None for _, teacher in stages):
            return (
                "a stage of the teacher ends in no BatchNorm of its width, from which ofd takes its margins"
            )
        return None

    def build(self, context: Context) -> nn.ModuleList:
        return nn.ModuleList(
            Connector(s, t) for s, t in paired(context.student.stages, context.teacher.stages)
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleList) -> Terms:
        stages = zip(modules, paired(student.preact, teacher.preact), strict=True)
        parts = [2.0**depth * m(s, t) for depth, (m, (s, t)) in enumerate(stages, start=1 - len(modules))]
        return {**self.task_terms(batch, student.logits, teacher.logits), "ofd": self.ofd_weight * sum(parts)}
