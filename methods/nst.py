"""Neuron selectivity transfer: the distribution of channels' activation patterns.

B samples, M and N channels, P positions.
"""

from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, paired, pool_to_smaller, unit


def kernel_mean(first: Tensor, second: Tensor) -> Tensor:
    """Mean of <a, b>^2 over samples and pairs of channels; [B, M, P], [B, N, P] -> scalar.

    >>> kernel_mean(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 1.0]]]))
    tensor(9.)
    """
    return (first @ second.transpose(1, 2)).square().mean()


def nst_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the channels' unit patterns; the larger map is pooled first.

    >>> maps = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    >>> nst_loss(maps, maps.flip(3))
    tensor(2.)
    """
    student, teacher = (unit(m.flatten(2), 2) for m in pool_to_smaller(student_map, teacher_map))
    within = kernel_mean(teacher, teacher) + kernel_mean(student, student)
    return within - 2 * kernel_mean(student, teacher)


@register
class NST(PlusKD):
    """Neuron selectivity transfer: match the distribution of the channels' activation patterns.

    Equation: L = ce_weight CE + kd_weight T^2 KL + nst_weight sum_l [mean k(t, t) + mean k(s, s) - 2 mean
    k(s, t)], k(a, b) = <a, b>^2 of channels' maps, flattened and divided by their L2 norms.

    Deviations: all stages are used, as in all released code, and paired from the last. A channel of zeros
    stays 0.
    """

    paper = Paper(
        title="Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
        authors=("Zehao Huang", "Naiyan Wang"),
        year=2017,
        arxiv="1707.01219",
        equation="6",
    )
    family = "feature"
    fidelity = "paper"
    space = {
        "nst_weight": log_range(5, 500),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    zero_at_match: ClassVar = ("nst",)
    weights: ClassVar = {"ce_weight": "ce", "nst_weight": "nst"}
    positive: ClassVar = ("kd_temperature",)

    nst_weight: float = 50.0  # RepDistiller and mdistiller, CIFAR-100

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        total = sum(nst_loss(s, t) for s, t in paired(student.stages, teacher.stages))
        return {**self.task_terms(batch, student.logits, teacher.logits), "nst": self.nst_weight * total}  # type: ignore[dict-item]
