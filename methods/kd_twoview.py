"""KD on a weak and a strong view: the fair control for methods that train on two views."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Batch, Method, Needs, Terms, Views, log_range
from kdbench.registry import register


@register
class KD_TwoView(Method):
    """Knowledge distillation on a weak and a strong view: the control for methods that train on two views.

    Equation: L = sum over views v of ce_weight CE(s_v) + kd_weight T^2 mean_i KL(softmax(t_v/T) ||
    softmax(s_v/T)).

    Deviations: none; it is a control of this suite and in no paper.
    """

    paper = None
    family = "logit"
    fidelity = "own"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
    }

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    alias_of: ClassVar[str] = "kd"
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    temperature: float = 4.0  # with the next two lines: kd's
    ce_weight: float = 0.1
    kd_weight: float = 0.9

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        pairs = [(student[v].logits, teacher[v].logits) for v in self.needs.views]
        return {
            "ce": self.ce_weight * sum(cross_entropy(s, batch.target) for s, _ in pairs),  # type: ignore[dict-item]
            "kd": self.kd_weight * sum(soft_kl(s, t, self.temperature) for s, t in pairs),  # type: ignore[dict-item]
        }
