"""Curriculum temperature: the temperature is learned against the student, from easy to hard."""

import math
from dataclasses import field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import scale_gradient, soft_kl, standardize
from kdbench.method import Batch, Context, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def adversary(epoch: float, epochs: int) -> float:
    """Factor of theta's gradient: a cosine from 0 to -1 at ``epochs``, then -1; epoch counts from 1.

    >>> [round(adversary(epoch, 10), 3) for epoch in (1, 5, 10, 20)]
    [-0.024, -0.5, -1.0, -1.0]
    """
    share = min(epoch / epochs, 1.0) if epochs else 1.0
    return (math.cos(math.pi * share) - 1) / 2


def learned_temperature(theta: Tensor, factor: float, start: float, span: float) -> Tensor:
    """start + span sigmoid(theta), theta's gradient times ``factor`` (negative: theta climbs the loss).

    >>> learned_temperature(torch.tensor(1.0), factor=-1.0, start=1.0, span=20.0)
    tensor(15.6212)
    """
    return start + span * scale_gradient(theta, factor).sigmoid()


class GlobalTemperature(nn.Module):
    """One learnable scalar, theta, that starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))


@register
class CTKD(Method):
    """Curriculum temperature: learn the temperature against the student, from easy to hard.

    Equation: L = ce_weight CE + kd_weight T^2 mean_i KL(softmax(t_i/T) || softmax(s_i/T)),
    T = t_start + t_span sigmoid(theta), d/dtheta multiplied by -lambda(epoch), lambda a cosine from 0 to 1.

    Deviations: only the global temperature (the per-instance network was not released). As released, T^2 is
    inside the gradient of theta, and theta has the student's optimiser settings, including weight decay.
    `standardize` is LSKD's (arXiv:2403.01427).
    """

    paper = Paper(
        title="Curriculum Temperature for Knowledge Distillation",
        authors=(
            "Zheng Li",
            "Xiang Li",
            "Lingfeng Yang",
            "Borui Zhao",
            "Renjie Song",
            "Lei Luo",
            "Jun Li",
            "Jian Yang",
        ),
        venue="AAAI",
        year=2023,
        arxiv="2211.16231",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "t_start": log_range(0.5, 4.0),
        "t_span": log_range(4.0, 40.0),
        "kd_weight": log_range(0.09, 9),
    }

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("t_start",)
    partial_gradient: ClassVar[bool] = True  # theta's is scaled and reversed

    # the release's CIFAR-100 scripts: T starts at 1 + 20 sigmoid(1) = 15.6; ImageNet: weights 1/1, lambda
    # over 5 epochs
    t_start: float = 1.0
    t_span: float = 20.0
    lambda_epochs: int = 10
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    standardize: bool = field(default=False, metadata={"neutral": False})

    def build(self, context: Context) -> GlobalTemperature:
        return GlobalTemperature()

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: GlobalTemperature) -> Terms:
        factor = adversary(batch.epoch, self.lambda_epochs)
        temperature = learned_temperature(modules.theta, factor, self.t_start, self.t_span)
        logits = (student.logits, teacher.logits)
        pair = map(standardize, logits) if self.standardize else logits
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(*pair, temperature),  # type: ignore[call-arg]
        }
