"""Knowledge distillation: the student matches the teacher's softened class probabilities."""

from typing import ClassVar

from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Method
from kdbench.registry import register


@register
class KD(Method):
    """Knowledge distillation (Hinton et al., NIPS workshop 2014, arXiv:1503.02531).

    Equation: L = ce_weight CE + kd_weight T^2 mean_i KL(softmax(t_i/T) || softmax(s_i/T)).
    fidelity: paper.
    Deviations: KL where the paper has cross-entropy; they differ by the teacher's entropy, which has no
    gradient.
    """

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    temperature: float = 4.0  # CIFAR-100: RepDistiller and mdistiller; ImageNet: T 1, weights 0.5/0.5
    ce_weight: float = 0.1
    kd_weight: float = 0.9

    def loss(self, batch, student, teacher, modules):
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(student.logits, teacher.logits, self.temperature),
        }
