"""Generalised KL: dkl's weighted error with flattened weights, divided by their sum."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import warmup
from kdbench.method import Batch, Context, Method, Paper, Terms, Views, log_range
from kdbench.registry import register

from .dkl import ClassPrior, difference_error, soft_term


def normalised_error(student_logits: Tensor, teacher_logits: Tensor, weight: Tensor) -> Tensor:
    """1/4 sum_i sum_jk w_j w_k ((t_j - t_k) - (s_j - s_k))^2 / sum_i sum_jk w_j w_k; ``weight`` [B, C].

    >>> normalised_error(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
    tensor(0.1250)
    """
    return difference_error(student_logits, teacher_logits, weight).sum() / weight.sum(dim=1).square().sum()


@register
class GKL(Method):
    """Generalised KL: dkl with flattened weights, normalised over the batch.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) [beta/4 sum_i sum_jk w_j w_k (D^t_jk - D^s_jk)^2
    / sum_i sum_jk w_j w_k - alpha/B sum_i sum_c p^t_c log p^s_c],
    D_jk = z_j - z_k of the raw logits, p = softmax(z/T), no T^2; w = (class prior of y_i)^gamma, see dkl.

    Deviations: the double sum is computed in O(C). A class without a sample in an epoch keeps its prior (0/0 in
    the released code). class_prior=False weights by the sample's own softmax(t/weight_temperature)^gamma
    instead.
    """

    paper = Paper(
        title="Generalized Kullback-Leibler Divergence Loss",
        authors=(
            "Jiequan Cui",
            "Beier Zhu",
            "Qingshan Xu",
            "Zhuotao Tian",
            "Xiaojuan Qi",
            "Bei Yu",
            "Hanwang Zhang",
            "Richang Hong",
        ),
        venue="TPAMI",
        year=2026,
        arxiv="2503.08038",
        journal=True,
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "weight_temperature": log_range(1.0, 16.0),
        "alpha": log_range(0.1, 10),
        "beta": log_range(1.6, 160),
    }

    coupled: ClassVar[bool] = True  # the weights are normalised over the batch
    alias_of: ClassVar[str] = (
        "dkl"  # same terms, other normalisation: at one batch the gradients are parallel
    )
    weights: ClassVar = {"ce_weight": "ce", "alpha": "soft", "beta": "wmse"}
    zero_at_match: ClassVar = ("wmse",)
    positive: ClassVar = ("temperature", "weight_temperature")

    # the release's CIFAR-100 configuration for resnet32x4 -> resnet8x4; ImageNet: gamma 0.6, 5 warm-up epochs
    temperature: float = 4.0
    weight_temperature: float = 4.0
    class_prior: bool = True
    gamma: float = 0.05
    alpha: float = 1.0
    beta: float = 16.0
    warmup_epochs: int = 20
    ce_weight: float = 1.0

    def build(self, context: Context) -> ClassPrior:
        return ClassPrior(context.num_classes)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ClassPrior) -> Terms:
        if self.class_prior:
            weight = modules.prior[batch.target] ** self.gamma
        else:
            weight = (self.gamma * (teacher.logits / self.weight_temperature).log_softmax(dim=1)).exp()
        ramp = warmup(batch.epoch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "wmse": ramp * self.beta * normalised_error(student.logits, teacher.logits, weight),
            "soft": ramp * self.alpha * soft_term(student.logits, teacher.logits, self.temperature),
        }

    def update(self, batch: Batch, student: Views, teacher: Views, modules: ClassPrior, terms: Terms) -> None:
        modules.add((teacher.logits / self.weight_temperature).softmax(dim=1), batch.target, batch.last)
