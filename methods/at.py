"""Attention transfer: where a stage is active, whatever its channels."""

from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, paired, pool_to_smaller, unit


def attention(maps: Tensor, power: int) -> Tensor:
    """Mean over channels of f^power, scaled to unit length -> [B, H W]; an odd power keeps the signs.

    >>> attention(torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), power=1)
    tensor([[0.6000, 0.8000]])
    """
    return unit(maps.pow(power).mean(dim=1).flatten(1))


def at_loss(student_map: Tensor, teacher_map: Tensor, power: int = 2) -> Tensor:
    """Mean squared difference of the attentions over samples and positions; the larger map is pooled first.

    >>> maps = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    >>> at_loss(maps, maps.flip(3), power=1)
    tensor(0.0400)
    """
    student, teacher = (attention(m, power) for m in pool_to_smaller(student_map, teacher_map))
    return (student - teacher).square().mean()


@register
class AT(PlusKD):
    """Attention transfer: match where each stage is active, whatever its channels.

    Equation: L = ce_weight CE + kd_weight T^2 KL + at_weight sum_l mean (a(F^s_l) - a(F^t_l))^2,
    a(F) = the channels' mean of F^power, flattened, divided by its L2 norm.

    Deviations: a mean of squares, as in all released code, in place of the paper's norm of the difference.
    Stages are paired from the last. A map of zeros has attention 0 and no gradient.
    """

    paper = Paper(
        title="Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks "
        "via Attention Transfer",
        authors=("Sergey Zagoruyko", "Nikos Komodakis"),
        venue="ICLR",
        year=2017,
        arxiv="1612.03928",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "at_weight": log_range(100, 10000),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    zero_at_match: ClassVar = ("at",)
    weights: ClassVar = {"ce_weight": "ce", "at_weight": "at"}
    positive: ClassVar = ("kd_temperature", "power")

    # RepDistiller and mdistiller, CIFAR-100
    at_weight: float = 1000.0
    power: int = 2

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        stages = paired(student.stages, teacher.stages)
        total = sum(at_loss(s, t, self.power) for s, t in stages)
        return {**self.task_terms(batch, student.logits, teacher.logits), "at": self.at_weight * total}  # type: ignore[dict-item]
