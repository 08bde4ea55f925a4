"""Streamlined distillation: the logits' values, and the direction in which samples lie from each other.

B samples, C classes, T temperature; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from kdbench.losses import gram, soft_kl
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register

from .mlkd import mask_fractions


def direction_gap(student_logits: Tensor, teacher_logits: Tensor, tikhonov: float) -> Tensor:
    """Mean Mahalanobis length of the rows of D = (cos^s - cos^t) / C, cos the B x B cosines of the samples' logits.

    The metric is the covariance of D's rows plus ``tikhonov`` I. The gradient is 0 where D is 0.

    >>> direction_gap(torch.eye(2), torch.ones(2, 2), tikhonov=0.1)
    tensor(1.2677)
    """
    student, teacher = (gram(normalize(z, dim=1)) / z.shape[1] for z in (student_logits, teacher_logits))
    gap = student - teacher
    centred = gap - gap.mean(dim=0)
    covariance = centred.T @ centred / (len(gap) - 1)
    metric = covariance + tikhonov * torch.eye(len(gap), dtype=gap.dtype, device=gap.device)
    factor = torch.linalg.cholesky_ex(metric).L
    squares = torch.linalg.solve_triangular(factor, gap.T, upper=False).square().sum(dim=0)
    nothing = squares == 0
    return torch.where(nothing, 0.0, torch.where(nothing, 1.0, squares).sqrt()).mean()


@register
class SKD(Method):
    """Streamlined distillation: kd, and the directions in which the samples' logits lie from each other.

    Equation: L = ce_weight CE + kd_weight [m_1 T^2 mean_i KL(p^t_i || p^s_i) + m_2 mean_i sqrt(D_i S^-1 D_i^T)],
    D = (cos^s - cos^t) / C over the B x B pairs of samples, S = cov(D) + tikhonov I; m_1 and m_2 the shares of
    samples (by confidence) and classes (by mass) at or below the median.

    Deviations: the authors' form. Their masks multiply scalars, so only the shares count (1/2 each for even B
    and C without ties). Their square root has no gradient at 0; here it is 0. torchdistill's port of the same
    name divides by no C and has neither T^2 nor CE: another loss, on another scale.
    """

    paper = Paper(
        title="Streamlined Knowledge Distillation",
        authors=(),
        venue="CVPR",
        year=2026,
        url="https://github.com/HyunJunSik/StreamLined",
        verified=False,
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
        "tikhonov": log_range(0.01, 1.0),
    }

    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # a covariance needs two samples
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": ("kd", "direction")}
    zero_at_match: ClassVar = ("kd", "direction")
    shift_invariant: ClassVar[bool] = False  # cosines see the origin
    positive: ClassVar = ("temperature", "tikhonov")

    # the release's CIFAR-100 configuration; resnet32x4 -> resnet8x4: weights 0.5/0.5
    temperature: float = 4.0
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    tikhonov: float = 0.1

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        of_samples, of_classes = mask_fractions(teacher.logits)
        direction = direction_gap(student.logits, teacher.logits, self.tikhonov)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * of_samples * soft_kl(student.logits, teacher.logits, self.temperature),
            "direction": self.kd_weight * of_classes * direction,
        }
