"""TeKAP: one teacher becomes several by noise on its logits.

B samples, C classes, T temperature, n noisy teachers; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def perturbed_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    noise: Tensor,
    temperature: float,
    teacher_share: float,
    noise_share: float,
) -> Tensor:
    """Sum over the noisy teachers of T^2 KL to ``teacher_share`` z^t + ``noise_share`` noise; noise is [n, B, C].

    >>> teacher = torch.tensor([[8.0, 0.0]])
    >>> perturbed_kl(torch.zeros(1, 2), teacher, torch.zeros(3, 1, 2), 4.0, teacher_share=0.5, noise_share=0.5)
    tensor(5.3253)
    """
    teachers = teacher_share * teacher_logits + noise_share * noise
    return torch.stack([soft_kl(student_logits, teacher, temperature) for teacher in teachers]).sum()


@register
class TeKAP(Method):
    """TeKAP: kd from the teacher and from several noisy copies of its logits, drawn anew in each step.

    Equation: L = ce_weight CE + kd_weight T^2 mean_i [KL(p^t_i || p^s_i) + noise_weight sum_{k<=n} KL(p^k_i ||
    p^s_i)], p^k the softmax of (teacher_share t + noise_share e_k) / T, e_k standard normal.

    Deviations: none in the logit form. The release's other form, on CRD's embeddings, is left out.
    """

    paper = Paper(
        title="Single Teacher, Multiple Perspectives: Teacher Knowledge Augmentation for Enhanced Knowledge "
        "Distillation",
        authors=("Md Imtiaz Hossain", "Sharmen Akhter", "Choong Seon Hong", "Eui-Nam Huh"),
        venue="ICLR",
        year=2025,
        url="https://openreview.net/forum?id=DmEHmZ89iB",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
        "noise_weight": log_range(0.08, 8),
    }
    separable = False  # the noise is drawn for the whole batch

    version: ClassVar[int] = 2  # 1 drew the numbers that the modules or the dropout began with, too
    alias_of: ClassVar[str] = "kd"  # the noise is small beside the logits
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

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        shape = (self.noisy_teachers, *teacher.logits.shape)
        noise = torch.randn(shape, generator=batch.generator, device=teacher.logits.device)
        shares = (self.temperature, self.teacher_share, self.noise_share)
        noisy = perturbed_kl(student.logits, teacher.logits, noise.to(teacher.logits.dtype), *shares)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * soft_kl(student.logits, teacher.logits, self.temperature),
            "noisy": self.kd_weight * self.noise_weight * noisy,
        }
