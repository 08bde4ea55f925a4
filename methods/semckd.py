"""SemCKD: attention decides which of the teacher's stages each of the student's stages learns from.

B samples (N in a full batch), S and T stages of student and teacher.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kdbench.losses import gram
from kdbench.method import Batch, Context, Needs, Paper, StageFacts, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, conv3x3, pool_to_smaller, unit


def similarities(maps: Tensor, width: int) -> Tensor:
    """Inner products of each sample with the batch -> [B, width], padded with zeros where the batch is smaller.

    >>> similarities(torch.eye(2), width=3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return pad(gram(maps.flatten(1)), (0, width - len(maps)))


class Embed(nn.Module):
    """Two linear layers whose result has unit length."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, 2 * outputs), nn.ReLU(), nn.Linear(2 * outputs, outputs)
        )

    def forward(self, rows: Tensor) -> Tensor:
        return unit(self.layers(rows))


def regressor(inputs: int, outputs: int) -> nn.Sequential:
    """Build the projection of student maps to a teacher stage: 1x1, 3x3 and 1x1 convolutions."""
    middle = 2 * outputs
    return nn.Sequential(
        *(conv1x1(inputs, middle), nn.BatchNorm2d(middle), nn.ReLU()),
        *(conv3x3(middle, middle), nn.BatchNorm2d(middle), nn.ReLU()),
        conv1x1(middle, outputs),
    )


class CrossAttention(nn.Module):
    """Queries of the student's stages, keys of the teacher's, and a regressor per pair of stages."""

    def __init__(self, student: Sequence[StageFacts], teacher: Sequence[StageFacts], batch_size: int) -> None:
        super().__init__()
        self.width = batch_size
        size = max(2, batch_size // 4)  # a single number of unit length is only a sign
        self.queries = nn.ModuleList(Embed(batch_size, size) for _ in student)
        self.keys = nn.ModuleList(Embed(batch_size, size) for _ in teacher)
        self.regressors = nn.ModuleList(
            nn.ModuleList(regressor(s.channels, t.channels) for t in teacher) for s in student
        )

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Attention weights [B, S, T] that sum to 1 over the teacher's stages."""
        sides = ((self.queries, student), (self.keys, teacher))
        queries, keys = (
            torch.stack([m(similarities(x, self.width)) for m, x in zip(ms, maps, strict=True)], dim=1)
            for ms, maps in sides
        )
        return (queries @ keys.transpose(1, 2)).softmax(dim=2)

    def errors(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Mean squared error of every pair of stages -> [B, S, T]; the larger map is pooled."""
        rows = []
        for modules, own in zip(self.regressors, student, strict=True):
            for module, other in zip(modules, teacher, strict=True):  # type: ignore[call-overload]
                source, target = pool_to_smaller(own, other)
                rows.append((module(source) - target).square().flatten(1).mean(dim=1))
        return torch.stack(rows, dim=1).unflatten(1, (len(student), len(teacher)))


def attended_error(attention: Tensor, errors: Tensor) -> Tensor:
    """Attention-weighted error: sum over the teacher's stages, mean over the rest; both arguments [B, S, T].

    >>> attended_error(torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[4.0, 0.0]]]))
    tensor(1.)
    """
    return (attention * errors).sum(dim=2).mean()


@register
class SemCKD(PlusKD):
    """Semantic calibration: attention chooses which teacher stages each student stage learns from.

    Equation: L = ce_weight CE + kd_weight T^2 KL + sem_weight mean_is sum_t a_ist e_ist, e_ist = the mean
    squared error of R_st(F^s_s) to F^t_t on sample i, a = softmax_t <q_s(G^s_s), k_t(G^t_t)>, G the stages'
    inner products between the samples of the batch, q and k two layers of unit length, R three convolutions.

    Deviations: rows of G are padded with zeros in a batch below the full size (the released layers accept no
    other size); embeddings have at least two numbers. As published, every pair of stages has a regressor twice
    as wide as the teacher's stage: 18 million parameters between networks of 512 channels, hundreds of millions
    from resnet50.
    """

    paper = Paper(
        title="Cross-Layer Distillation with Semantic Calibration",
        authors=(
            "Defang Chen",
            "Jian-Ping Mei",
            "Yuan Zhang",
            "Can Wang",
            "Zhe Wang",
            "Yan Feng",
            "Chun Chen",
        ),
        venue="AAAI",
        year=2021,
        arxiv="2012.03236",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "kd_temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.1, 10),
        "sem_weight": log_range(40, 4000),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True
    order_dependent: ClassVar[bool] = True  # G's columns are the batch in its order
    zero_at_match: ClassVar = ("kd",)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "sem_weight": "sem"}
    positive: ClassVar = ("kd_temperature",)

    # the release, CIFAR-100; ImageNet: 50
    sem_weight: float = 400.0
    kd_weight: float = 1.0

    def build(self, context: Context) -> CrossAttention:
        return CrossAttention(context.student.stages, context.teacher.stages, context.batch_size)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: CrossAttention) -> Terms:
        stages = (student.stages, teacher.stages)
        error = attended_error(modules.attention(*stages), modules.errors(*stages))
        terms = self.task_terms(batch, student.logits, teacher.logits)
        return {**terms, "sem": self.sem_weight * error}
