"""Discriminative and consistent distillation: pairs are recognised in both directions, and alike in both.

B samples, D size of the learned embeddings.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def dcd_terms(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the rows of [B, B] to the diagonal; KL(columns || rows), both as softmax, mean over samples.

    ``scores``: row i is a student's embedding against every teacher's.

    >>> dcd_terms(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    (tensor(1.4100), tensor(0.3808))
    """
    rows, columns = scores.log_softmax(dim=1), scores.T.log_softmax(dim=1)
    diagonal = torch.arange(len(scores), device=scores.device)
    return cross_entropy(scores, diagonal), kl(rows, columns).mean()


class Embeddings(nn.Module):
    """Learned embeddings of both models at unit length, and the logarithm of the scale of their products."""

    scale: Tensor

    def __init__(self, context: Context, size: int, learned: bool) -> None:
        super().__init__()
        self.student = nn.Linear(context.student.embedding_size, size)
        self.teacher = nn.Linear(context.teacher.embedding_size, size)
        start = torch.ones(())
        if learned:
            self.scale = nn.Parameter(start)
        else:
            self.register_buffer("scale", start)

    def scores(self, student: Tensor, teacher: Tensor, max_scale: float) -> Tensor:
        """Scaled cosines [B, B]: row i is the student's sample i against the teacher's."""
        scale = self.scale.exp().clamp(max=max_scale)
        return scale * unit(self.student(student)) @ unit(self.teacher(teacher)).T


@register
class DCD(PlusKD):
    """Discriminative and consistent distillation: find a sample's teacher embedding in the batch, and conversely.

    Equation: L = ce_weight CE + dcd_weight [CE of the rows of S to the diagonal + consistency_weight mean_i KL(
    softmax_j S_ji || softmax_j S_ij)], S_ij = min(exp(scale), max_scale) cos(f_i, g_j), f and g learned linear
    embeddings of student and teacher; scale is learned from 1. The gradient flows through both sides of the KL.

    Deviations: the released code adds a learned bias to S, which changes neither softmax. Its ImageNet script never
    updates the scale: learned_scale=False.
    """

    paper = Paper(
        title="Discriminative and Consistent Representation Distillation",
        authors=("Nikolaos Giakoumoglou", "Tania Stathaki"),
        year=2024,
        arxiv="2407.11802",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "dcd_weight": log_range(0.1, 10),
        "consistency_weight": log_range(0.05, 5),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # one sample is always found
    weights: ClassVar = {
        "ce_weight": "ce",
        "dcd_weight": ("contrast", "consistency"),
        "consistency_weight": "consistency",
    }
    positive: ClassVar = ("kd_temperature", "size", "max_scale")

    # the release
    dcd_weight: float = 1.0
    consistency_weight: float = 0.5
    size: int = 128
    max_scale: float = 10.0
    learned_scale: bool = True

    def build(self, context: Context) -> Embeddings:
        return Embeddings(context, self.size, self.learned_scale)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Embeddings) -> Terms:
        scores = modules.scores(student.embedding, teacher.embedding, self.max_scale)
        contrast, consistency = dcd_terms(scores)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "contrast": self.dcd_weight * contrast,
            "consistency": self.dcd_weight * self.consistency_weight * consistency,
        }
