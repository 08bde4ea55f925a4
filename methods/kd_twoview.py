"""KD on a weak and a strong view: the fair control for methods that train on two views (mlkd, crld)."""

from typing import ClassVar

from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Method, Needs
from kdbench.registry import register


@register
class KD_TwoView(Method):
    """Knowledge distillation on two views (Hinton et al., NIPS workshop 2014, arXiv:1503.02531).

    Equation: L = sum over views v of ce_weight CE(s_v) + kd_weight T^2 mean_i KL(softmax(t_v/T) ||
    softmax(s_v/T)).
    fidelity: reconstruction.
    Deviations: a control of this suite, in no paper: kd's loss summed over the weak and the strong view.
    """

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    alias_of: ClassVar[str] = "kd"
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    temperature: float = 4.0  # this line and the next two: as kd
    ce_weight: float = 0.1
    kd_weight: float = 0.9

    def loss(self, batch, student, teacher, modules):
        pairs = [(student[v].logits, teacher[v].logits) for v in self.needs.views]
        return {
            "ce": self.ce_weight * sum(cross_entropy(s, batch.target) for s, _ in pairs),
            "kd": self.kd_weight * sum(soft_kl(s, t, self.temperature) for s, t in pairs),
        }
