"""Wasserstein distillation of logits: transport between similar classes costs less.

B samples, C classes, D size of the teacher's embedding, T temperature; logits are [B, C].
"""

from collections.abc import Iterable
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.method import Batch, Context, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from .nkd import soft_target


def without_target(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax over the classes other than the target -> [B, C], 0 at the target.

    >>> without_target(torch.zeros(1, 3), torch.tensor([0]))
    tensor([[0.0000, 0.5000, 0.5000]])
    """
    return logits.scatter(1, target[:, None], -torch.inf).softmax(dim=1)


def sinkhorn(student: Tensor, teacher: Tensor, cost: Tensor, reg: float, rounds: int) -> Tensor:
    """Cost of the entropic transport of ``student`` to ``teacher`` [B, C], per sample -> [B].

    ``cost`` [C, C] in [0, 1], so exp(-cost/reg) stays in range of float32 for reg > 0.012. A class without
    mass on either side is left out.

    >>> start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> sinkhorn(start, end, 1 - torch.eye(2), reg=0.05, rounds=10).round(decimals=4)
    tensor([1.])
    """
    kernel = (-cost / reg).exp()
    tiny = torch.finfo(kernel.dtype).tiny
    u = (student > 0).to(kernel.dtype)
    u = u / u.sum(dim=1, keepdim=True)
    for _ in range(rounds):
        v = teacher / (u @ kernel).clamp(min=tiny)
        u = student / (v @ kernel.T).clamp(min=tiny)
    return (u * (v @ (kernel * cost).T)).sum(dim=1)


def class_costs(kernels: Tensor, sharpen: float) -> Tensor:
    """1 - exp(-sharpen (1 - CKA)) of class kernels [C, D, D] -> [C, C]; a class of zeros is far from all others.

    >>> class_costs(torch.eye(2).diag_embed(), sharpen=1.0)
    tensor([[0.0000, 0.6321],
            [0.6321, 0.0000]])
    """
    flat = kernels.flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    cost = -(-sharpen * (1 - unit @ unit.T).clamp(min=0)).expm1()
    return cost.fill_diagonal_(0.0)


def late_decay(epoch: float, start: int, end: int) -> float:
    """Weight by epoch: 1 until ``start``, then a cosine to 0 at ``end``.

    >>> [round(late_decay(epoch, 150, 240), 3) for epoch in (100, 195, 240)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + cos(pi * min(max(epoch - start, 0.0) / max(end - start, 1), 1.0)))


class ClassCosts(nn.Module):
    """The cost matrix [C, C]; all classes are equally far apart until `WKD.prepare` has measured them."""

    cost: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("cost", 1 - torch.eye(num_classes))


@register
class WKD(Method):
    """Wasserstein distillation of logits: moving probability between similar classes costs less.

    Equation: L = ce_weight CE - mean_i p^t_y log p^s_y + decay(epoch) kd_weight mean_i W(q^s_i, q^t_i),
    q = softmax of the C - 1 other logits / T, W entropic transport (Sinkhorn) with cost
    1 - exp(-sharpen (1 - CKA(c, d))), decay a cosine from decay_start to 0 at decay_end.

    Deviations: CKA compares the teacher's D x D feature kernels of two classes (features centred, linear
    kernel, unaugmented train set), so that classes of unequal size can be compared; the release ships its
    matrix, and how it was computed is uncertain. `prepare` holds C D^2 numbers. The student does not run in
    half precision.
    """

    paper = Paper(
        title="Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation",
        authors=("Jiaming Lv", "Haoyuan Yang", "Peihua Li"),
        venue="NeurIPS",
        year=2024,
        arxiv="2412.08139",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(60, 6000),
        "sinkhorn_reg": log_range(0.01, 0.5),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "wasserstein"}
    positive: ClassVar = ("temperature", "sinkhorn_reg", "sinkhorn_rounds", "sharpen")

    # the release's CIFAR-100 configuration; ImageNet: T 2, weight 30
    temperature: float = 8.0
    kd_weight: float = 600.0
    ce_weight: float = 1.0
    decay_start: int = 150
    decay_end: int = 240
    sharpen: float = 1.0
    sinkhorn_reg: float = 0.05
    sinkhorn_rounds: int = 10

    def build(self, context: Context) -> ClassCosts:
        return ClassCosts(context.num_classes)

    def prepare(
        self, context: Context, teacher_batches: Iterable[tuple[Batch, Views]], modules: ClassCosts
    ) -> None:
        kernels, classes = None, torch.arange(context.num_classes, device=modules.cost.device)
        for batch, teacher in teacher_batches:
            features = teacher.embedding - teacher.embedding.mean(dim=1, keepdim=True)
            if kernels is None:
                kernels = features.new_zeros(context.num_classes, features.shape[1], features.shape[1])
            hits = (batch.target[:, None] == classes).to(features.dtype)
            kernels += torch.einsum("bc,bd,be->cde", hits, features, features)
        modules.cost.copy_(class_costs(kernels, self.sharpen))

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ClassCosts) -> Terms:
        pair = (without_target(z.logits / self.temperature, batch.target) for z in (student, teacher))
        distance = sinkhorn(*pair, modules.cost, self.sinkhorn_reg, self.sinkhorn_rounds)  # type: ignore[arg-type, call-arg]
        decay = late_decay(batch.epoch, self.decay_start, self.decay_end)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "target": soft_target(student.logits, teacher.logits, batch.target).mean(),
            "wasserstein": decay * self.kd_weight * distance.mean(),
        }
