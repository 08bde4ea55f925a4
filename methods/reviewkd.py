"""Knowledge review: the student's stages, fused from deep to shallow, match the teacher's."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from kdbench.losses import warmup
from kdbench.method import Batch, Context, ModelFacts, Needs, Paper, StageFacts, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, conv3x3, paired, pool

LEVELS = (4, 2, 1)


def hierarchical_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of the maps and of their means over 4 x 4, 2 x 2 and 1 x 1 cells.

    Each level weighs half of the one before; the weights sum to 1. Levels that are not below the map's height are
    left out.

    >>> hierarchical_loss(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    tensor(1.)
    """
    errors = [mse_loss(student, teacher)]
    for level in LEVELS:
        if level < student.shape[2]:
            errors.append(mse_loss(*(pool(m, (level, level)) for m in (student, teacher))))  # type: ignore[arg-type]
    weights = [0.5**place for place in range(len(errors))]
    return sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)  # type: ignore[return-value]


class Fusion(nn.Module):
    """Attention-based fusion of one stage with the result of the deeper ones."""

    def __init__(self, inputs: int, middle: int, outputs: int, fuse: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv1x1(inputs, middle), nn.BatchNorm2d(middle))
        self.conv2 = nn.Sequential(conv3x3(middle, outputs), nn.BatchNorm2d(outputs))
        self.att_conv = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuse else None
        for convolution in (self.conv1[0], self.conv2[0]):
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the map to compare with the teacher's, of ``size``, and the map for the next shallower stage."""
        fused = self.conv1(maps)
        if self.att_conv is not None:
            deeper = interpolate(deeper, fused.shape[2:], mode="nearest")
            weight = self.att_conv(torch.cat([fused, deeper], dim=1))
            fused = fused * weight[:, :1] + deeper * weight[:, 1:]
        if tuple(fused.shape[2:]) != tuple(size):
            fused = interpolate(fused, size, mode="nearest")
        return self.conv2(fused), fused


def fuse(modules: nn.ModuleList, student: list[Tensor], teacher: list[Tensor]) -> list[Tensor]:
    """Fuse the student's maps to the teacher's shapes; ``modules`` and maps are ordered from the deepest."""
    found, deeper = [], None
    for module, maps, target in zip(modules, student, teacher, strict=True):
        out, deeper = module(maps, deeper, tuple(target.shape[2:]))
        found.append(out)
    return found


def with_embedding(facts: ModelFacts) -> list[StageFacts]:
    """The stages and the embedding as a 1 x 1 map."""
    return [*facts.stages, StageFacts(facts.embedding_size, (1, 1))]


def maps_of(stages: tuple[Tensor, ...], views: Views) -> list[Tensor]:
    """Return the maps of all stages, then the embedding as a 1x1 map."""
    return [*stages, views.embedding[:, :, None, None]]


@register
class ReviewKD(PlusKD):
    """Knowledge review: fuse the student's stages from deep to shallow and match the teacher's.

    Equation: L = ce_weight CE + kd_weight T^2 KL + min(epoch/warmup_epochs, 1) review_weight sum_l HCL(R_l,
    F^t_l), F^t the teacher's stages before their ReLU and its embedding, R_l the student's stages l..n and
    embedding, fused from deep to shallow with learned attention (ABF), HCL a mean squared error over a
    pyramid.

    Deviations: the epoch counts from 1, as in mdistiller (from 0 in the first release). Stages are paired
    from the last.
    """

    paper = Paper(
        title="Distilling Knowledge via Knowledge Review",
        authors=("Pengguang Chen", "Shu Liu", "Hengshuang Zhao", "Jiaya Jia"),
        venue="CVPR",
        year=2021,
        arxiv="2104.09044",
        equation="6",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "review_weight": log_range(0.1, 10),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(stages=True, preact="teacher", embedding=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the fusion
    min_batch: ClassVar[int] = 2
    weights: ClassVar = {"ce_weight": "ce", "review_weight": "review"}
    positive: ClassVar = ("kd_temperature", "max_middle")

    # mdistiller, CIFAR-100: 0.6 for resnet56 to 20, 1 for resnet110 to 32, 5 for resnet32x4 to 8x4, 8 for
    # MobileNet and ShuffleNets, these with student_preact=False as well
    review_weight: float = 1.0
    warmup_epochs: int = 20
    student_preact: bool = False
    max_middle: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_preact:  # this instance alone needs more
            object.__setattr__(self, "needs", replace(self.needs, preact=True))

    def build(self, context: Context) -> nn.ModuleList:
        levels = paired(*map(with_embedding, (context.student, context.teacher)))[::-1]
        middle = min(self.max_middle, context.student.embedding_size)
        return nn.ModuleList(
            Fusion(s.channels, middle, t.channels, fuse=depth > 0) for depth, (s, t) in enumerate(levels)
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleList) -> Terms:
        own = student.preact if self.student_preact else student.stages
        levels = paired(maps_of(own, student), maps_of(teacher.preact, teacher))[::-1]
        maps, targets = (list(side) for side in zip(*levels, strict=True))
        fused = fuse(modules, maps, targets)
        total = sum(hierarchical_loss(r, t) for r, t in zip(fused, targets, strict=True))
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "review": ramp * self.review_weight * total,  # type: ignore[dict-item]
        }
