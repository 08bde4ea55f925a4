"""Normalised distillation: a soft target term, and the other classes renormalised before they are compared.

B samples, C classes, T temperature; logits are [B, C].
"""

from dataclasses import field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import drop_target, soft_cross_entropy, standardize
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def soft_target(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """-p^t_y log p^s_y at T = 1, per sample -> [B].

    >>> soft_target(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.3466])
    """
    student, teacher = (
        z.log_softmax(dim=1).gather(1, target[:, None]).squeeze(1) for z in (student_logits, teacher_logits)
    )
    return -teacher.exp() * student


def nkd_terms(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: float,
    keep_target: bool = False,
) -> tuple[Tensor, Tensor]:
    """Per sample: the target term and T^2 times the other classes' cross-entropy, renormalised -> [B], [B].

    ``keep_target`` leaves the target among "the other classes", a mistake in some released copies.

    >>> nkd_terms(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0]), temperature=2.0)
    (tensor([0.3662]), tensor([2.7726]))
    """
    pair = (student_logits, teacher_logits)
    rest = pair if keep_target else (drop_target(z, target) for z in pair)
    others = soft_cross_entropy(*((z / temperature).log_softmax(dim=1) for z in rest))
    return soft_target(*pair, target), temperature**2 * others


@register
class NKD(Method):
    """Normalised distillation: a soft target term plus the other classes, renormalised.

    Equation: L = ce_weight CE - mean_i p^t_y log p^s_y - gamma T^2 mean_i sum_{c != y} q^t_c log q^s_c,
    p at temperature 1, q = softmax of the C - 1 other logits / T.

    Deviations: none. Both terms are cross-entropies, so they do not vanish where student equals teacher.
    `standardize` is lskd's, before both terms; the release has no such switch.
    """

    paper = Paper(
        title="From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss "
        "and Customized Soft Labels",
        authors=("Zhendong Yang", "Ailing Zeng", "Zhe Li", "Tianke Zhang", "Chun Yuan", "Yu Li"),
        venue="ICCV",
        year=2023,
        arxiv="2303.13005",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "gamma": log_range(0.35, 35),
    }

    weights: ClassVar = {"ce_weight": "ce", "gamma": "rest"}
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 configuration; ImageNet: T 1, gamma 1.5
    temperature: float = 3.0
    gamma: float = 3.5
    ce_weight: float = 1.0
    standardize: bool = field(default=False, metadata={"neutral": False})

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        logits = (student.logits, teacher.logits)
        s, t = map(standardize, logits) if self.standardize else logits
        target, rest = nkd_terms(s, t, batch.target, self.temperature)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "target": target.mean(),
            "rest": self.gamma * rest.mean(),
        }
