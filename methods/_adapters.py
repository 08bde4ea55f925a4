"""Building blocks of the feature methods: task terms, pooling, pairing of stages, published adapters.

B samples, C classes, D embedding size; maps are [B, channels, height, width]. Registers no method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.losses import soft_kl, standardize
from kdbench.method import Batch, Context, Method, ModelFacts, StageFacts, Terms


@dataclass(frozen=True)
class PlusKD(Method):
    """Base of methods that kd can be added to: "CRD+KD" is crd with kd_weight=1."""

    ce_weight: float = 1.0
    kd_weight: float = 0.0
    kd_temperature: float = 4.0
    # the KL of logits standardised by sample (LSKD, arXiv:2403.01427)
    standardize: bool = field(default=False, metadata={"neutral": False})

    def task_terms(self, batch: Batch, logits: Tensor, teacher_logits: Tensor) -> Terms:
        """Return the weighted terms ``ce``, of ``logits`` on the labels, and ``kd`` = T^2 KL."""
        pair = (logits, teacher_logits)
        scores = map(standardize, pair) if self.standardize else pair
        return {
            "ce": self.ce_weight * F.cross_entropy(logits, batch.target),
            "kd": self.kd_weight * soft_kl(*scores, self.kd_temperature),  # type: ignore[call-arg]
        }


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Divide ``vectors`` by their L2 norm along ``dim``; a zero vector stays zero and gets no gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    squares = vectors.square().sum(dim=dim, keepdim=True)
    zero = squares == 0
    return torch.where(zero, 0.0, vectors / torch.where(zero, 1.0, squares).sqrt())


def pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Pool by adaptive averages to ``size`` = (height, width); maps of that size are returned as they are.

    Computed as two matrix products: torch's own pooling has no deterministic gradient on CUDA.

    >>> pool(torch.arange(16.0).view(1, 1, 4, 4), (2, 2))
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    weights = []
    for old, new in zip(maps.shape[2:], size, strict=True):
        place = torch.arange(old, device=maps.device)
        cell = torch.arange(new, device=maps.device)[:, None]
        inside = (place >= cell * old // new) & (place < ((cell + 1) * old + new - 1) // new)
        weights.append(inside.to(maps.dtype) / inside.sum(dim=1, keepdim=True))
    return weights[0] @ maps @ weights[1].T


def pool_to_smaller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Pool both maps to the size of the one with fewer rows; at equal heights, to the second's.

    >>> [maps.shape for maps in pool_to_smaller(torch.zeros(1, 3, 8, 8), torch.zeros(1, 5, 4, 4))]
    [torch.Size([1, 3, 4, 4]), torch.Size([1, 5, 4, 4])]
    """
    size = tuple((first if first.shape[2] < second.shape[2] else second).shape[2:])
    return pool(first, size), pool(second, size)  # type: ignore[arg-type]


def paired(student: Sequence[Any], teacher: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pair stages from the deepest; the first stages of the longer sequence are left out.

    >>> paired("abc", "xy")
    [('b', 'x'), ('c', 'y')]
    """
    count = min(len(student), len(teacher))
    return list(zip(student[-count:], teacher[-count:], strict=True))


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def fan_out_normal(modules: nn.Module) -> nn.Module:
    """Draw the convolutions' weights from N(0, 2 / (kernel area x output channels)), in place."""
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return modules


class ConvReg(nn.Module):
    """FitNets' released regressor: one convolution to the teacher's channels and size, BatchNorm, ReLU.

    A student map that is smaller than the teacher's, but not half its size, keeps its size (as in SemCKD's release).
    """

    def __init__(self, student: StageFacts, teacher: StageFacts, relu: bool = True) -> None:
        super().__init__()
        channels, (height, width) = (student.channels, teacher.channels), student.size
        if height == 2 * teacher.size[0]:
            self.conv: nn.Module = nn.Conv2d(*channels, 3, stride=2, padding=1)
        elif 2 * height == teacher.size[0]:
            self.conv = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
        elif height >= teacher.size[0]:
            self.conv = nn.Conv2d(*channels, (1 + height - teacher.size[0], 1 + width - teacher.size[1]))
        else:
            self.conv = nn.Conv2d(*channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(teacher.channels)
        self.relu = relu

    def forward(self, maps: Tensor) -> Tensor:
        found = self.bn(self.conv(maps))
        return F.relu(found) if self.relu else found


class LinearHead(nn.Module):
    """A frozen copy of ``classify`` (an affine map from [B, D] to [B, C]) in buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, classify: Callable[[Tensor], Tensor], context: Context, size: int) -> None:
        super().__init__()
        probe = _accepted(classify, context.num_classes, size, context.train_targets.device)
        with torch.enable_grad():  # the gradient of an affine map is its weight, to the bit
            logits = classify(probe)
            rows = torch.eye(context.num_classes, dtype=logits.dtype, device=logits.device)
            (weight,) = torch.autograd.grad(logits, probe, rows)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", logits[0].detach().clone())

    def forward(self, embedding: Tensor) -> Tensor:
        return F.linear(embedding, self.weight, self.bias)


def _accepted(classify: Callable[[Tensor], Tensor], count: int, size: int, device: torch.device) -> Tensor:
    """Zeros [count, size] in single precision, or in double where the head accepts nothing else."""
    probe = torch.zeros(count, size, device=device)
    try:
        classify(probe)
    except RuntimeError:
        probe = probe.double()
    return probe.requires_grad_()


def needs_linear_head(method: str, **models: ModelFacts) -> str | None:
    """Say why a pair is skipped: a head that is not linear; None where all are. ``models``: by role."""
    for role, facts in models.items():
        if not facts.linear_head:
            return f"the {role}'s head is not linear on the mean of its last map, which {method} needs"
    return None
