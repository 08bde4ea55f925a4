"""N-to-one representation matching: a linear module in the student holds many copies of the teacher's map."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, layer_norm

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, fan_out_normal, needs_linear_head, pool

# the share of norm_weight up to an epoch, of 240; LAST after the last of them
SHARES = ((10, 0.1), (20, 0.5), (180, 1.0), (210, 0.5))
LAST = 0.1


def share(epoch: float) -> float:
    """Part of the matching's weight that counts in ``epoch``, from 1: low, full in the middle, low at the end.

    >>> [share(epoch) for epoch in (1, 10, 11, 21, 180, 181, 211, 240)]
    [0.1, 0.1, 0.5, 1.0, 1.0, 0.5, 0.1, 0.1]
    """
    return next((part for end, part in SHARES if epoch <= end), LAST)


def scaled_logits(logits: Tensor, scale: float) -> Tensor:
    """``scale`` times the logits [B, C] at mean 0 and variance 1 in each row (biased, + 1e-7).

    >>> scaled_logits(torch.tensor([[1.0, 3.0]]), 2.5)
    tensor([[-2.5000,  2.5000]])
    """
    return scale * layer_norm(logits, logits.shape[1:], eps=1e-7)


def many_to_one(expanded: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared error of each of N segments to the teacher's map, summed over the segments.

    ``expanded`` [B, N D, h, w], ``teacher_map`` [B, D, H, W]. A larger teacher's map is max-pooled to the other's
    size, a larger student's map average-pooled.

    >>> many_to_one(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))
    tensor(5.)
    """
    size: tuple[int, int] = min(tuple(expanded.shape[2:]), tuple(teacher_map.shape[2:]))  # type: ignore[assignment]
    target = adaptive_max_pool2d(teacher_map, size)
    segments = pool(expanded, size).unflatten(1, (-1, target.shape[1]))
    return (segments - target[:, None]).square().mean(dim=(0, 2, 3, 4)).sum()


class Transform(nn.Module):
    """The linear module: expansion to N times the teacher's channels, contraction, residual connection."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.expand = fan_out_normal(nn.Sequential(conv1x1(inputs, outputs), nn.BatchNorm2d(outputs)))
        self.contract = fan_out_normal(nn.Sequential(conv1x1(outputs, inputs), nn.BatchNorm2d(inputs)))
        self.residual = residual

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expanded map and the map for the student's head."""
        expanded = self.expand(features)
        contracted = self.contract(expanded)
        return expanded, features + contracted if self.residual else contracted


@register
class NORM(PlusKD):
    """N-to-one representation matching: N segments of the student's expanded last map each match the teacher's.

    Equation: L = ce_weight CE(z) + kd_weight T^2 KL + share(epoch) norm_weight sum_{n<=N} mean (E_n - F^t)^2,
    E = BN(conv1x1(F^s)) of N D channels in N segments, F the last maps, D the teacher's channels. The student's head
    classifies the mean over space of F^s + BN(conv1x1(E)); z and the teacher's logits are brought to mean 0 and
    standard deviation logit_scale in each row before CE and KL. share is 0.1, 0.5, 1, 0.5, 0.1, with steps after
    epochs 10, 20, 180 and 210. The prediction is z; the module, which is linear, stays in the student.

    Deviations: where the student's map is the larger one it is average-pooled (the release for CIFAR-100 refuses it,
    the one for ImageNet max-pools it); the deployed module is not merged into the head. The scaling of the logits and
    share are in the release, not in the paper.
    """

    paper = Paper(
        title="NORM: Knowledge Distillation via N-to-One Representation Matching",
        authors=("Xiaolong Liu", "Lujun Li", "Chao Li", "Anbang Yao"),
        venue="ICLR",
        year=2023,
        arxiv="2305.13803",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "norm_weight": log_range(0.1, 10),
        "logit_scale": log_range(0.5, 10.0),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(features=True, classifier=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the module
    keeps_modules: ClassVar[bool] = True
    weights: ClassVar = {"ce_weight": "ce", "norm_weight": "norm"}
    positive: ClassVar = ("kd_temperature", "copies", "logit_scale")

    # the release's example, resnet32x4 to resnet8x4; its script tries a ce_weight of 0.0625 to 0.5 for each pair.
    norm_weight: float = 1.0
    ce_weight: float = 0.1
    copies: int = 8
    logit_scale: float = 2.5
    residual: bool = True  # False: "plain FT" in the paper's tables

    def skip(self, context: Context) -> str | None:
        return needs_linear_head("norm", student=context.student)

    def build(self, context: Context) -> Transform:
        outputs = self.copies * context.teacher.feature_channels
        return Transform(context.student.feature_channels, outputs, self.residual)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Transform) -> Terms:
        expanded, contracted = modules(student.features)
        logits = self.classify(student, contracted)
        weight = share(batch.epoch) * self.norm_weight
        return {
            **self.task_terms(batch, logits, scaled_logits(teacher.logits, self.logit_scale)),
            "norm": weight * many_to_one(expanded, teacher.features),
        }

    def classify(self, student: Views, maps: Tensor) -> Tensor:
        """Scaled logits [B, C] of the student's head on ``maps``."""
        return scaled_logits(student.classify(maps.mean(dim=(2, 3))), self.logit_scale)

    def predict(self, student: Views, modules: Transform) -> Tensor:
        return self.classify(student, modules(student.features)[1])
