"""Similarity preserving: which samples of a batch activate the last stage alike."""

from typing import ClassVar

from torch import Tensor, nn

from kdbench.losses import gram
from kdbench.method import Batch, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def similarity(features: Tensor) -> Tensor:
    """Inner products of the flattened features, rows at unit length: [B, ...] -> [B, B].

    >>> similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[0.7071, 0.7071],
            [0.4472, 0.8944]])
    """
    return unit(gram(features.flatten(1)))


def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of the similarities: ||G_s - G_t||_F^2 / B^2.

    >>> sp_loss(torch.eye(2), torch.ones(2, 2))
    tensor(0.2929)
    """
    return (similarity(student_features) - similarity(teacher_features)).square().mean()


@register
class SP(PlusKD):
    """Similarity preservation: match which samples of a batch activate the last stage alike.

    Equation: L = ce_weight CE + kd_weight T^2 KL + sp_weight ||G_s - G_t||_F^2 / B^2, G = F F^T of the
    flattened last stage [B, channels x H x W], each row divided by its L2 norm.

    Deviations: one pair of layers, the last, as in all released code. A sample without activations has a row
    of zeros and no gradient.
    """

    paper = Paper(
        title="Similarity-Preserving Knowledge Distillation",
        authors=("Frederick Tung", "Greg Mori"),
        venue="ICCV",
        year=2019,
        arxiv="1907.09682",
        equation="4",
    )
    family = "relation"
    fidelity = "paper"
    space = {
        "sp_weight": log_range(300, 30000),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True
    zero_at_match: ClassVar = ("sp",)
    weights: ClassVar = {"ce_weight": "ce", "sp_weight": "sp"}
    positive: ClassVar = ("kd_temperature",)

    sp_weight: float = 3000.0  # RepDistiller and mdistiller, CIFAR-100

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        similar = sp_loss(student.stages[-1], teacher.stages[-1])
        return {**self.task_terms(batch, student.logits, teacher.logits), "sp": self.sp_weight * similar}
