"""Simple recipe distillation: normalised embeddings, a linear projector and the logarithm of a fourth power.

B samples, D size of the teacher's embedding.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD

IMAGENET_EPS = 1e-4
DEIT_EPS = 1e-15  # the release has 0, at which a constant dimension gives NaN
LOG_EPS = 1e-5  # inside the logarithm of the DeiT form


def normalised(embedding: Tensor, eps: float) -> Tensor:
    """Normalise the columns of [B, D] as BatchNorm does without affine terms: biased variance plus ``eps``.

    >>> normalised(torch.tensor([[1.0], [3.0]]), eps=3.0)
    tensor([[-0.5000],
            [ 0.5000]])
    """
    centred = embedding - embedding.mean(dim=0)
    return centred * (centred.square().mean(dim=0) + eps).rsqrt()


def difference_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The ImageNet form: log of the sum of (n^s - n^t)^4 over samples and dimensions, n the `normalised` [B, D].

    The sum is at least the smallest normal number, so that equal embeddings give no infinity.

    >>> difference_loss(torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [-1.0]])) - torch.tensor(32.0).log()
    tensor(-0.0002)
    """
    gap = normalised(student, IMAGENET_EPS) - normalised(teacher, IMAGENET_EPS)
    total = gap.pow(4).sum()
    return total.clamp(min=torch.finfo(total.dtype).tiny).log()


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The DeiT form: log of (the sum of (c_d - 1)^4 over dimensions + 1e-5), c_d the correlation over the batch.

    >>> correlation_loss(torch.tensor([[-1.0], [1.0]]), torch.tensor([[3.0], [2.0]])) - torch.tensor(16.0).log()
    tensor(4.7684e-07)
    """
    correlation = (normalised(student, DEIT_EPS) * normalised(teacher, DEIT_EPS)).mean(dim=0)
    return ((correlation - 1).pow(4).sum() + LOG_EPS).log()


@register
class SRD(PlusKD):
    """Simple recipe distillation: the soft maximum of the differences between normalised embeddings.

    Equation: L = ce_weight CE + kd_weight T^2 KL + srd_weight log sum_{i,d} (n^s_id - n^t_id)^4, n = (e - mean) /
    sqrt(var + 1e-4) over the batch, e the teacher's embedding and a linear map of the student's to its size.
    variant "deit": srd_weight log(sum_d (c_d - 1)^4 + 1e-5), c_d the correlation of dimension d, instead.

    Deviations: the projector has no bias, which the normalisation removes. The DeiT form's released class does not
    run (an undefined name), and its variance has no eps; here it is 1e-15, so a constant dimension counts as
    uncorrelated. The other form's sum is cut below at the smallest normal number. torchdistill's port leaves the
    teacher's embedding as it is: its normalisation stays in evaluation mode with fresh statistics.
    """

    paper = Paper(
        title="Understanding the Role of the Projector in Knowledge Distillation",
        authors=("Roy Miles", "Krystian Mikolajczyk"),
        venue="AAAI",
        year=2024,
        arxiv="2303.11098",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "kd_temperature": log_range(0.5, 8.0),
        "kd_weight": log_range(0.1, 10),
        "srd_weight": log_range(0.2, 20),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True  # the normalisation
    min_batch: ClassVar[int] = 2  # one sample is normalised to 0
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "srd_weight": "srd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("kd_temperature",)

    # the release's ImageNet configuration (ResNet-34 -> ResNet-18); its DeiT form has srd_weight 1
    variant: Literal["imagenet", "deit"] = "imagenet"
    srd_weight: float = 2.0
    kd_weight: float = 1.0
    kd_temperature: float = 1.0

    def build(self, context: Context) -> nn.Module:
        return nn.Linear(context.student.embedding_size, context.teacher.embedding_size, bias=False)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Linear) -> Terms:
        form = difference_loss if self.variant == "imagenet" else correlation_loss
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "srd": self.srd_weight * form(modules(student.embedding), teacher.embedding),
        }
