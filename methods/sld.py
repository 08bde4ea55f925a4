"""Swapped logit distillation: where a model is wrong, the values of its top class and of the label change places.

B samples, C classes; logits are [B, C].
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl, swap_top
from kdbench.method import Batch, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def pooled_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Sum of T^2 KL(teacher || student) over the temperatures 1 to 6, mean over the batch.

    >>> pooled_kl(torch.zeros(1, 2), torch.tensor([[4.0, 0.0]]))
    tensor(9.0636)
    """
    return torch.stack([soft_kl(student_logits, teacher_logits, t) for t in TEMPERATURES]).sum()


@register
class SLD(Method):
    """Swapped logit distillation: put the label on top of a wrong prediction before it teaches.

    Equation: L = sum over both views of ce_weight CE + kd_weight sum_{T=1..6} T^2 mean_i [KL(swap(t_i) || s_i)
    + 1[epoch > second_after] KL(swap(s_i) || s_i)], KL of softmax(./T); swap exchanges the logits of the top
    class and of the label.

    Deviations: none. As released, the second teacher, the student's own swapped logits, is not detached;
    detach=True does that. The fair control is `kd_twoview`: both views, no swap.
    """

    paper = Paper(
        title="Swapped Logit Distillation via Bi-level Teacher Alignment",
        authors=(
            "Stephen Ekaputra Limantoro",
            "Jhe-Hao Lin",
            "Chih-Yu Wang",
            "Yi-Lung Tsai",
            "Hong-Han Shuai",
            "Ching-Chun Huang",
            "Wen-Huang Cheng",
        ),
        venue="Multimedia Systems",
        year=2025,
        arxiv="2504.20108",
        journal=True,
    )
    family = "logit"
    fidelity = "code"
    space = {
        "kd_weight": log_range(0.09, 9),
    }

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": ("kd", "self")}
    ablate: ClassVar = {"detach": (True,)}

    # the release's CIFAR-100 configuration; ImageNet: 0.5/0.5 for resnet18, 1.0/0.5 for mobilenetv2
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    second_after: int = 150  # reference epochs
    detach: bool = False

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        second = float(batch.epoch > self.second_after)
        ce, kd, own = [], [], []
        for view in self.needs.views:
            s, t = student[view].logits, teacher[view].logits
            ce.append(cross_entropy(s, batch.target))
            kd.append(pooled_kl(s, swap_top(t, batch.target)))
            own.append(pooled_kl(s, swap_top(s.detach() if self.detach else s, batch.target)))
        return {
            "ce": self.ce_weight * torch.stack(ce).sum(),
            "kd": self.kd_weight * torch.stack(kd).sum(),
            "self": second * self.kd_weight * torch.stack(own).sum(),
        }
