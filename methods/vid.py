"""Variational information distillation: how well the student's stages predict the teacher's, in nats."""

from math import expm1, log
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, paired, pool_to_smaller

MIN_VARIANCE = 1e-5


class Predictor(nn.Module):
    """A Gaussian over the teacher's map: the mean from the student's map, one variance per channel."""

    def __init__(self, inputs: int, outputs: int, variance: float, learned: bool = True) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            conv1x1(inputs, outputs),
            nn.ReLU(),
            conv1x1(outputs, outputs),
            nn.ReLU(),
            conv1x1(outputs, outputs),
        )
        scale = torch.full((outputs,), log(expm1(variance - MIN_VARIANCE)))
        if learned:
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale)

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """Negative log-likelihood ((t - mean)^2 / var + log var) / 2, mean over elements; the larger map is pooled."""
        student, teacher = pool_to_smaller(student_map, teacher_map)
        variance = (softplus(self.log_scale) + MIN_VARIANCE)[:, None, None]
        return 0.5 * ((self.regressor(student) - teacher).square() / variance + variance.log()).mean()


@register
class VID(PlusKD):
    """Variational information distillation: maximise how well the student's stages predict the teacher's.

    Equation: L = ce_weight CE + kd_weight T^2 KL + vid_weight sum_l mean 1/2 [(F^t_l - m(F^s_l))^2 / v_l +
    log v_l], m three 1x1 convolutions, v_l = softplus(a) + 1e-5 per channel, a learned.

    Deviations: the weight is RepDistiller's. Stages are paired from the last. v is learned, as in the paper; in
    mdistiller it is not. The teacher's BatchNorm stays as it was loaded, as in RepDistiller; mdistiller first passes
    an image of noise through it in training mode. The constant log(2 pi)/2 is left out.
    """

    paper = Paper(
        title="Variational Information Distillation for Knowledge Transfer",
        authors=("Sungsoo Ahn", "Shell Xu Hu", "Andreas Damianou", "Neil D. Lawrence", "Zhenwen Dai"),
        venue="CVPR",
        year=2019,
        arxiv="1904.05835",
        equation="5 and 6",
    )
    family = "feature"
    fidelity = "paper"
    space = {
        "vid_weight": log_range(0.1, 10),
        "variance": log_range(0.5, 50.0),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    weights: ClassVar = {"ce_weight": "ce", "vid_weight": "vid"}
    positive: ClassVar = ("kd_temperature", "variance")

    # RepDistiller, CIFAR-100
    vid_weight: float = 1.0
    variance: float = 5.0  # at the start
    learn_variance: bool = True  # False: mdistiller's

    def build(self, context: Context) -> nn.ModuleList:
        stages = paired(context.student.stages, context.teacher.stages)
        return nn.ModuleList(
            Predictor(s.channels, t.channels, self.variance, self.learn_variance) for s, t in stages
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleList) -> Terms:
        stages = paired(student.stages, teacher.stages)
        total = sum(predict(s, t) for predict, (s, t) in zip(modules, stages, strict=True))
        return {**self.task_terms(batch, student.logits, teacher.logits), "vid": self.vid_weight * total}
