"""TeKAP: one teacher becomes several by noise on its logits."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Method
from kdbench.registry import register


def perturbed_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    noise: Tensor,
    temperature: float,
    teacher_share: float,
    noise_share: float,
) -> Tensor:
    """Sum over the noisy teachers of T^2 KL to ``teacher_share`` z^t + ``noise_share`` noise; noise is [n, B, C]."""
    teachers = teacher_share * teacher_logits + noise_share * noise
    return torch.stack([soft_kl(student_logits, teacher, temperature) for teacher in teachers]).sum()


@register
class TeKAP(Method):
    """Single teacher, multiple perspectives, TeKAP (Hossain et al., ICLR 2025, no arXiv id verified).

    Equation: L = ce_weight CE + kd_weight [T^2 KL(t || s) + noise_weight sum_{k<=n} T^2 KL(t_k || s)], t_k the softmax
    of (teacher_share z^t + noise_share e_k) / T with e_k normal and drawn anew in each step.
    fidelity: code.
    Deviations: the logit form alone; the release's other form perturbs CRD's embeddings.
    """

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": ("kd", "noisy"), "noise_weight": "noisy"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature", "noisy_teachers")

    # the release's CIFAR-100 command
    temperature: float = 4.0
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    noise_weight: float = 0.8
    teacher_share: float = 0.9
    noise_share: float = 0.1
    noisy_teachers: int = 3

    def loss(self, batch, student, teacher, modules):
        shape = (self.noisy_teachers, *teacher.logits.shape)
        noise = torch.randn(shape, generator=batch.generator, device=teacher.logits.device)
        shares = (self.temperature, self.teacher_share, self.noise_share)
        noisy = perturbed_kl(student.logits, teacher.logits, noise.to(teacher.logits.dtype), *shares)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(student.logits, teacher.logits, self.temperature),
            "noisy": self.kd_weight * self.noise_weight * noisy,
        }
