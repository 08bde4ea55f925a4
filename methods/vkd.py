"""Distillation by orthogonal projections: the projector keeps lengths and angles of the student's embeddings.

B samples, D^s and D^t the embedding sizes, n >= k the larger and the smaller of them.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, smooth_l1_loss

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD


def cayley(skew: Tensor) -> Tensor:
    """(I - A/2)^-1 (I + A/2) of a skew-symmetric A [n, n]: an orthogonal matrix, I for A = 0.

    >>> cayley(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    identity = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve_ex(
        identity - skew / 2, identity + skew / 2
    ).result  # solve waits for the device


class OrthogonalLinear(nn.Module):
    """x -> x W^T without bias, W [outputs, inputs] with orthonormal columns, or rows where it has fewer of them.

    W (transposed where it is wide) is the first k columns of base cayley(X - X^T), X the lower triangle of
    ``weight`` [n, k], filled up with zeros to [n, n]. ``base`` is a random orthogonal matrix and X begins with 0.
    """

    base: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        n, k = max(inputs, outputs), min(inputs, outputs)
        self.wide = outputs < inputs
        self.weight = nn.Parameter(torch.zeros(n, k))
        self.register_buffer("base", nn.init.orthogonal_(torch.empty(n, n)))

    @property
    def matrix(self) -> Tensor:
        """W [outputs, inputs]."""
        n, k = self.weight.shape
        lower = nn.functional.pad(self.weight.tril(), (0, n - k))
        columns = self.base @ cayley(lower - lower.T)[:, :k]
        return columns.T if self.wide else columns

    def forward(self, embedding: Tensor) -> Tensor:
        return linear(embedding, self.matrix)


@register
class VkD(PlusKD):
    """Orthogonal projection: fit the student's embedding, turned but not distorted, to the normalised teacher's.

    Equation: L = ce_weight CE + kd_weight T^2 KL + feature_weight mean smooth_l1(W e^s - layernorm(e^t)), W an
    orthogonal projection (W^T W = I, or W W^T = I where the teacher's embedding is the smaller one), layernorm
    without affine terms, smooth_l1 with its bend at 1, mean over samples and dimensions.

    Deviations: the embedding is what the head reads; the release pools the student's patch tokens and takes the
    KL on DeiT's distillation token. W is a Cayley transform in place of torch's orthogonal parametrisation: of a
    matrix that is not square, that one is made of reflections whose signs weight decay turns to 0, so W is 0 from
    the second step on (the release decays it); its two other maps wait for the device. The release trains with
    mixup.
    """

    paper = Paper(
        title="VkD: Improving Knowledge Distillation using Orthogonal Projections",
        authors=("Roy Miles", "Ismail Elezi", "Jiankang Deng"),
        venue="CVPR",
        year=2024,
        arxiv="2403.06213",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "kd_temperature": log_range(0.5, 8.0),
        "kd_weight": log_range(0.1, 10),
        "feature_weight": log_range(0.1, 10),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "feature_weight": "feature"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("kd_temperature",)

    # the release, DeiT on ImageNet
    feature_weight: float = 1.0
    kd_weight: float = 1.0
    kd_temperature: float = 1.0

    def build(self, context: Context) -> OrthogonalLinear:
        return OrthogonalLinear(context.student.embedding_size, context.teacher.embedding_size)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: OrthogonalLinear) -> Terms:
        target = layer_norm(teacher.embedding, teacher.embedding.shape[1:])
        feature = self.feature_weight * smooth_l1_loss(modules(student.embedding), target)
        return {**self.task_terms(batch, student.logits, teacher.logits), "feature": feature}
