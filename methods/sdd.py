"""Scale-decoupled distillation: a logit loss on every cell of a pyramid over the last map.

B samples, C classes, N cells, T temperature.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, warmup
from kdbench.method import Batch, Context, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import needs_linear_head
from .dkd import dkd_terms
from .nkd import nkd_terms


def pool(maps: Tensor, cells: int) -> Tensor:
    """Pool by adaptive averages to a cells x cells grid -> [B, D, cells, cells].

    Windows overlap where the size does not divide. Computed as two matrix products: torch's own pooling has no
    deterministic gradient on CUDA.

    >>> pool(torch.arange(16.0).view(1, 1, 4, 4), 2)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    weights = []
    for size in maps.shape[2:]:
        place = torch.arange(size, device=maps.device)
        cell = torch.arange(cells, device=maps.device)[:, None]
        inside = (place >= cell * size // cells) & (place < ((cell + 1) * size + cells - 1) // cells)
        weights.append(inside.to(maps.dtype) / inside.sum(dim=1, keepdim=True))
    return weights[0] @ maps @ weights[1].T


def cell_logits(features: Tensor, classify: Callable[[Tensor], Tensor], scales: tuple[int, ...]) -> Tensor:
    """Apply the head to the mean of every cell -> [N * B, C], cell by cell; coarser grids pool the 4 x 4 one.

    >>> cell_logits(torch.arange(16.0).view(1, 1, 4, 4), lambda means: means, (1, 2)).flatten()
    tensor([ 7.5000,  2.5000,  4.5000, 10.5000, 12.5000])
    """
    fine = pool(features, 4)
    cells = torch.cat([pool(fine, m).flatten(2) for m in scales], dim=2)  # [B, D, N]
    return classify(cells.permute(2, 0, 1).flatten(0, 1))


def cell_weight(teacher_cells: Tensor, target: Tensor, complement: float) -> Tensor:
    """``complement`` where the teacher is right either here or in the first (global) cell, else 1 -> [N * B].

    >>> cell_weight(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]), complement=2.0)
    tensor([1., 2.])
    """
    right = teacher_cells.argmax(dim=1).view(-1, len(target)) == target  # [N, B]
    return torch.where(right != right[:1], complement, 1.0).flatten().to(teacher_cells.dtype)


@register
class SDD(Method):
    """Scale-decoupled distillation: a logit loss on every cell of a pyramid over the last map.

    Equation: L = ce_weight CE + kd_weight r(epoch)/(N B) sum over cells n, samples i of w_ni l(s_ni, t_ni);
    s, t the head's logits of the last map's mean over a cell of the 1 x 1, 2 x 2, 4 x 4 grids; l the loss of
    kd, dkd or nkd; w = complement where the teacher is right in the cell or overall but not both, else 1;
    r = 1 for kd, else min(epoch/warmup_epochs, 1).

    Deviations: form="code" keeps the target among nkd's other classes, a mistake in the released copy. The
    release's silent replacement of a NaN loss by a constant is left out. Models are not rebuilt: cells are
    pooled from `features`.
    """

    paper = Paper(
        title="Scale Decoupled Distillation",
        authors=("Shicai Wei", "Chunbo Luo", "Yang Luo"),
        venue="CVPR",
        year=2024,
        arxiv="2403.13512",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.1, 10),
        "alpha": log_range(0.1, 10),
        "beta": log_range(0.25, 16.0),
        "complement": log_range(0.5, 8.0),
    }

    needs: ClassVar[Needs] = Needs(features=True, classifier=True)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "sdd"}
    zero_at_match: ClassVar = ("sdd",)  # base kd and dkd; nkd is a cross-entropy
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 settings; beta and the scales by pair
    base: Literal["dkd", "kd", "nkd"] = "dkd"
    scales: Literal["1-2-4", "1-2", "1"] = "1-2-4"
    temperature: float = 4.0
    complement: float = 2.0
    kd_weight: float = 1.0
    ce_weight: float = 1.0
    alpha: float = 1.0  # base dkd
    beta: float = 8.0  # base dkd
    gamma: float = 8.0  # base nkd
    warmup_epochs: int = 20  # base dkd and nkd
    form: Literal["paper", "code"] = "paper"

    def skip(self, context: Context) -> str | None:
        return needs_linear_head("sdd", student=context.student, teacher=context.teacher)

    def cell_loss(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The base method's loss of every row, without its warm-up."""
        if self.base == "kd":
            pair = ((z / self.temperature).log_softmax(dim=1) for z in (student, teacher))
            return self.temperature**2 * kl(*pair)
        if self.base == "dkd":
            tckd, nckd = dkd_terms(student, teacher, target, self.temperature)
            return self.alpha * tckd + self.beta * nckd
        hit, rest = nkd_terms(student, teacher, target, self.temperature, self.form == "code")
        return hit + self.gamma * rest

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        scales = tuple(map(int, self.scales.split("-")))
        cells, guide = (cell_logits(m.features, m.classify, scales) for m in (student, teacher))
        weight = cell_weight(guide, batch.target, self.complement)
        rows = self.cell_loss(cells, guide, batch.target.repeat(len(weight) // len(batch.target)))
        ramp = 1.0 if self.base == "kd" else warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "sdd": self.kd_weight * ramp * (weight * rows).mean(),
        }
