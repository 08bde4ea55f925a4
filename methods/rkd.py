"""Relational distillation: distances between samples and angles of triples.

B samples, D embedding size.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from kdbench.losses import gram
from kdbench.method import Batch, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit

FLOOR = 1e-12  # of a squared distance: two equal samples are 1e-6 apart


def distances(embedding: Tensor, squared: bool = False) -> Tensor:
    """Euclidean distances [B, B], or their squares, divided by their mean off the diagonal.

    >>> distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    products = gram(embedding)
    squares = products.diagonal()
    apart = (squares[:, None] + squares[None, :] - 2 * products).clamp(min=FLOOR)
    apart = apart if squared else apart.sqrt()
    count = len(embedding)
    apart = torch.where(torch.eye(count, dtype=torch.bool, device=apart.device), 0.0, apart)
    return apart / (apart.sum() / max(count * (count - 1), 1)).clamp(min=FLOOR)


def angles(embedding: Tensor) -> Tensor:
    """At sample i, the cosine between the directions to j and k -> [B, B, B]; 0 where one is i itself.

    >>> angles(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))[1, 0, 2]
    tensor(0.7071)
    """
    directions = unit(embedding[None, :] - embedding[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


@register
class RKD(PlusKD):
    """Relational distillation: match distances between samples and angles of triples.

    Equation: L = ce_weight CE + kd_weight T^2 KL + distance_weight mean_ij h(d^s_ij, d^t_ij) + angle_weight
    mean_ijk h(cos^s_ijk, cos^t_ijk), h smooth L1, d distances of embeddings over their mean.

    Deviations: as in all released code, means run over all B^2 pairs and B^3 triples, including degenerate
    ones. Equal samples have direction 0 and no gradient (1e12 in released code). Memory grows with B^3.
    """

    paper = Paper(
        title="Relational Knowledge Distillation",
        authors=("Wonpyo Park", "Dongju Kim", "Yan Lu", "Minsu Cho"),
        venue="CVPR",
        year=2019,
        arxiv="1904.05068",
        equation="4 to 8",
    )
    family = "relation"
    fidelity = "paper"
    space = {
        "distance_weight": log_range(2.5, 250),
        "angle_weight": log_range(5, 500),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    zero_at_match: ClassVar = ("distance", "angle")
    weights: ClassVar = {
        "ce_weight": "ce",
        "distance_weight": "distance",
        "angle_weight": "angle",
    }
    positive: ClassVar = ("kd_temperature",)

    # the release, RepDistiller and mdistiller
    distance_weight: float = 25.0
    angle_weight: float = 50.0
    squared: bool = False  # mdistiller's switch: squares of distances

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        pair = (student.embedding, teacher.embedding)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "distance": self.distance_weight * smooth_l1_loss(*(distances(e, self.squared) for e in pair)),  # type: ignore[arg-type]
            "angle": self.angle_weight * smooth_l1_loss(*map(angles, pair)),  # type: ignore[arg-type]
        }
