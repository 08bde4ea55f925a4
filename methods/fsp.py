"""Flow of the solution procedure: how the channels of a stage go together with those of the next."""

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, pool_to_smaller


def flow(bottom: Tensor, top: Tensor) -> Tensor:
    """Mean over positions of channel products -> [B, top's channels, bottom's channels]; the larger map is pooled.

    >>> flow(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), torch.tensor([3.0, 4.0]).view(1, 1, 1, 2))
    tensor([[[5.5000]]])
    """
    bottom, top = pool_to_smaller(bottom, top)
    bottom, top = bottom.flatten(2), top.flatten(2)
    return top @ bottom.transpose(1, 2) / bottom.shape[2]


def flow_losses(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> list[Tensor]:
    """Mean squared difference of the flows, one value per pair of consecutive maps.

    >>> flow_losses((torch.ones(1, 1, 2, 2),) * 3, (torch.zeros(1, 1, 2, 2),) * 3)
    [tensor(1.), tensor(1.)]
    """
    flows = ([flow(*pair) for pair in pairwise(maps)] for maps in (student, teacher))
    return [(s - t).square().mean() for s, t in zip(*flows, strict=True)]


@register
class FSP(PlusKD):
    """Flow of the solution procedure: match how the channels of consecutive stages go together.

    Equation: until init_epochs L = fsp_weight sum_l mean (G^s_l - G^t_l)^2, G_l = F_l+1 F_l^T / (H W) of
    stages l and l + 1; then L = ce_weight CE + kd_weight T^2 KL.

    Deviations: the stem's map is not a stage, so there is one flow fewer than in the release. Both phases
    share the recipe's epochs, learning rate and optimiser; the release trains the first 30 epochs in addition,
    without BatchNorm updates of the student.
    """

    paper = Paper(
        title="A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
        authors=("Junho Yim", "Donggyu Joo", "Jihoon Bae", "Junmo Kim"),
        venue="CVPR",
        year=2017,
        equation="1 and 2",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "fsp_weight": log_range(0.1, 10),
    }

    needs: ClassVar[Needs] = Needs(stages=True)
    zero_at_match: ClassVar = ("fsp",)
    weights: ClassVar = {"ce_weight": "ce", "fsp_weight": "fsp"}
    positive: ClassVar = ("kd_temperature",)

    # RepDistiller, CIFAR-100; it is also given a weight of 50, which its first phase does not apply (and which
    # makes resnet20's first steps diverge at the rate 0.05)
    fsp_weight: float = 1.0
    init_epochs: int = 30

    def skip(self, context: Context) -> str | None:
        student, teacher = ([s.channels for s in m.stages] for m in (context.student, context.teacher))
        if student != teacher:
            return (
                f"fsp needs equal channels, stage by stage: the student has {student}, the teacher {teacher}"
            )
        return None if len(student) > 1 else "fsp needs two stages or more"

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        if batch.epoch > self.init_epochs:
            terms = self.task_terms(batch, student.logits, teacher.logits)
            return {**terms, "fsp": 0.0 * terms["ce"]}
        total = self.fsp_weight * sum(flow_losses(student.stages, teacher.stages))
        return {"ce": 0.0 * total, "kd": 0.0 * total, "fsp": total}  # type: ignore[dict-item]
