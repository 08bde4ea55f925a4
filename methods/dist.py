"""Distillation from a stronger teacher: correlation instead of equality, over classes and over the batch."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def pearson(a: Tensor, b: Tensor, dim: int, eps: float = 1e-8) -> Tensor:
    """Correlation of ``a`` and ``b`` along ``dim``: <a, b> / (|a| |b| + eps) of the centred values.

    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]), dim=0).round(decimals=4)
    tensor(1.)
    """
    a, b = (x - x.mean(dim, keepdim=True) for x in (a, b))
    return (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + eps)


def dist_terms(student_logits: Tensor, teacher_logits: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """(inter, intra): tau^2 (1 - mean correlation) of the rows and of the columns of softmax(z/tau).

    >>> [term.round(decimals=4) for term in dist_terms(torch.eye(2), 1 - torch.eye(2), tau=1.0)]
    [tensor(2.), tensor(2.)]
    """
    student, teacher = ((z / tau).softmax(dim=1) for z in (student_logits, teacher_logits))
    inter, intra = (tau**2 * (1 - pearson(student, teacher, dim).mean()) for dim in (1, 0))
    return inter, intra


@register
class DIST(Method):
    """Distillation by correlation, over the classes of a sample and over the batch.

    Equation: L = ce_weight CE + kd_weight (beta inter + gamma intra), rho Pearson's correlation,
    inter = tau^2 (1 - mean_i rho(p^s_i, p^t_i)) over rows, intra = tau^2 (1 - mean_c rho(p^s_c, p^t_c)) over
    columns of the B x C probabilities at tau.

    Deviations: none. The correlation has the released code's 1e-8 in its denominator, so a perfect match costs
    slightly more than 0.
    """

    paper = Paper(
        title="Knowledge Distillation from A Stronger Teacher",
        authors=("Tao Huang", "Shan You", "Fei Wang", "Chen Qian", "Chang Xu"),
        venue="NeurIPS",
        year=2022,
        arxiv="2205.10536",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "tau": log_range(1.0, 8.0),
        "kd_weight": log_range(0.2, 20),
        "beta": log_range(0.1, 10),
        "gamma": log_range(0.1, 10),
    }

    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # a column of one sample has no correlation
    weights: ClassVar = {
        "ce_weight": "ce",
        "kd_weight": ("inter", "intra"),
        "beta": "inter",
        "gamma": "intra",
    }
    positive: ClassVar = ("tau",)

    # the release's CIFAR-100 configuration; ImageNet: tau 1
    tau: float = 4.0
    beta: float = 1.0
    gamma: float = 1.0
    kd_weight: float = 2.0
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        inter, intra = dist_terms(student.logits, teacher.logits, self.tau)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "inter": self.kd_weight * self.beta * inter,
            "intra": self.kd_weight * self.gamma * intra,
        }
