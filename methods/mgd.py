"""Masked generative distillation: the student's map, with a part of it missing, generates the teacher's."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register

from ._adapters import PlusKD, pool_to_smaller


def hide(maps: Tensor, draws: Tensor, ratio: float) -> Tensor:
    """Set to 0 what draws below ``ratio``; what stays is not rescaled.

    ``maps`` [B, D, H, W]; ``draws`` uniform in [0, 1), [B, D, 1, 1] for whole channels, [B, 1, H, W] for positions.

    >>> hide(torch.ones(1, 3, 1, 1), torch.tensor([0.1, 0.2, 0.9]).view(1, 3, 1, 1), 0.2).flatten()
    tensor([0., 1., 1.])
    """
    return torch.where(draws < ratio, 0.0, maps)


def generation_loss(generated: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared error, summed over a sample's map, mean over the batch.

    >>> generation_loss(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    tensor(48.)
    """
    return (generated - teacher_map).square().sum() / len(generated)


class Generator(nn.Module):
    """1x1 convolution to the teacher's channels, where they differ, and the generating block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.align = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.generation = nn.Sequential(
            *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )

    def forward(self, student_map: Tensor, draws: Tensor, ratio: float) -> Tensor:
        return self.generation(hide(self.align(student_map), draws, ratio))


@register
class MGD(PlusKD):
    """Masked generative distillation: the student's map generates the teacher's with some of its channels hidden.

    Equation: L = ce_weight CE + kd_weight T^2 KL + mgd_weight / B sum_i ||G(M_i A(F^s_i)) - F^t_i||^2, F the last
    map, A = conv1x1 to the teacher's channels, where they differ, G = 3x3 convolution, ReLU, 3x3 convolution, M a
    mask of 0 with probability mask_ratio, else 1, drawn in each step for each sample and channel (mask="channel", as
    in the released classifier) or position (mask="position", the paper's equation).

    Deviations: where the maps' sizes differ the larger one is pooled; the release refuses such a pair.
    """

    paper = Paper(
        title="Masked Generative Distillation",
        authors=(
            "Zhendong Yang",
            "Zhe Li",
            "Mingqi Shao",
            "Dachuan Shi",
            "Zehuan Yuan",
            "Chun Yuan",
        ),
        venue="ECCV",
        year=2022,
        arxiv="2205.01529",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "mgd_weight": log_range(7e-06, 0.0007),
        "mask_ratio": linear_range(0.05, 0.75),
    }
    separable = False  # the mask is drawn for the whole batch

    needs: ClassVar[Needs] = Needs(features=True)
    version: ClassVar[int] = 2  # 1 drew the numbers that the modules or the dropout began with, too
    weights: ClassVar = {"ce_weight": "ce", "mgd_weight": "mgd"}
    positive: ClassVar = ("kd_temperature",)
    ablate: ClassVar = {"mask": ("position",)}

    # the release, ImageNet; it has no CIFAR-100 command. The sum grows with the size of the map.
    mgd_weight: float = 0.00007
    mask_ratio: float = 0.15
    mask: Literal["channel", "position"] = "channel"

    def build(self, context: Context) -> Generator:
        return Generator(context.student.feature_channels, context.teacher.feature_channels)

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform draws for the map ``like`` [B, D, H, W], one for each unit that is hidden as a whole."""
        batch, channels, height, width = like.shape
        shape = (batch, channels, 1, 1) if self.mask == "channel" else (batch, 1, height, width)
        return torch.rand(shape, generator=generator, device=like.device)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Generator) -> Terms:
        source, target = pool_to_smaller(student.features, teacher.features)
        generated = modules(source, self.draw(target, batch.generator), self.mask_ratio)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "mgd": self.mgd_weight * generation_loss(generated, target),
        }
