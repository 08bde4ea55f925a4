"""DeepKD: task, target-class and non-target-class gradients have momenta of their own.

B samples, C classes, T temperature; logits are [B, C].
"""

from collections.abc import Mapping
from math import ceil
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import drop_target, kl, split_target
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def kept_classes(epoch: float, epochs: int, first_share: float, others: int) -> int:
    """How many of the ``others`` non-target classes take part: at least two of them, all from ``epochs`` on.

    Grows linearly from ``first_share`` of them in epoch 1; with ``epochs`` = 0 all take part throughout.

    >>> [kept_classes(epoch, 120, 0.05, 99) for epoch in (1, 60, 120, 240)]
    [5, 52, 99, 99]
    """
    share = min(first_share + (1 - first_share) * (epoch - 1) / max(epochs - 1, 1), 1.0) if epochs else 1.0
    return min(max(ceil(share * others), 2), others)


def deepkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float, k: int
) -> tuple[Tensor, Tensor]:
    """Per sample: T^2 KL of (p_y, 1 - p_y), and (1 - p^t_y) T^2 KL over the teacher's ``k`` largest non-targets.

    Where k = C - 1, the two add up to T^2 KL over all classes.

    >>> import torch
    >>> teacher = torch.tensor([[0.5, 0.3, 0.2]]).log()
    >>> deepkd_terms(torch.zeros(1, 3), teacher, torch.tensor([0]), 1.0, k=2)
    (tensor([0.0589]), tensor([0.0101]))
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature
    student_binary, teacher_binary = (split_target(logits, target)[0] for logits in (student, teacher))
    student_rest, teacher_rest = (drop_target(logits, target) for logits in (student, teacher))
    largest = teacher_rest.topk(k, dim=1).indices
    student_kept, teacher_kept = (
        rest.gather(1, largest).log_softmax(dim=1) for rest in (student_rest, teacher_rest)
    )
    missed = teacher_binary[:, 1].exp()
    scale = temperature**2
    return scale * kl(student_binary, teacher_binary), scale * missed * kl(student_kept, teacher_kept)


@register
class DeepKD(Method):
    """DeepKD: cross-entropy, target-class and non-target-class terms with a momentum each, and a growing top-k mask.

    Equation: L = ce_weight CE + alpha TCKD + beta NCKD, TCKD = T^2 mean_i KL((p_y, 1-p_y)^t || (p_y, 1-p_y)^s), NCKD =
    T^2 mean_i (1 - p^t_y) KL(q^t || q^s), q the softmax over the teacher's k largest non-targets; v_g <- (momentum +
    offset_g) v_g + grad_g for each of the three, weight decay in CE's, and the weights move by the sum of the v_g.

    Deviations: this is the paper's rule. The released code gives CE the momentum of TCKD (0.825 in place of 0.975),
    puts the weight decay into TCKD's buffer, multiplies the batch means of (1 - p^t_y) and of the KL, drops the weight
    0.5 of both KD terms, and has no schedule of k: k is one number, by default off. Of the paper's schedule only the
    abstract was read (k grows from a small value): that it grows linearly, from 5 % of the non-targets to all at the
    end of training, is our choice; mask_epochs=0 switches the mask off. Terms with equal offsets share a
    backward pass and a buffer, which is the same sum. Published numbers are of the released code, not of this rule.
    """

    paper = Paper(
        title="DeepKD: A Deeply Decoupled and Denoised Knowledge Distillation Trainer",
        authors=("Haiduo Huang", "Jiangcheng Song", "Yadong Zhang", "Pengju Ren"),
        venue="NeurIPS",
        year=2025,
        arxiv="2505.15133",
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha": log_range(0.05, 5),
        "beta": log_range(0.05, 5),
    }

    weights: ClassVar = {"ce_weight": "ce", "alpha": "tckd", "beta": "nckd"}
    zero_at_match: ClassVar = ("tckd", "nckd")
    positive: ClassVar = ("temperature", "first_share")
    ablate: ClassVar = {"mask_epochs": (0,), "rest_offset": (0.025, 0.05)}

    # the release's CIFAR-100 configurations; ImageNet: T 1
    temperature: float = 4.0
    ce_weight: float = 0.5
    alpha: float = 0.5
    beta: float = 0.5
    task_offset: float = 0.075
    target_offset: float = -0.075
    rest_offset: float = 0.075  # 0.05 with dkd's or mlkd's loss, 0.025 for resnet56 -> resnet20
    mask_epochs: int = 240  # reference epochs; ImageNet's schedule has 100
    first_share: float = 0.05

    @property
    def momentum_offsets(self) -> Mapping[str, float]:
        """One momentum per term."""
        return {"ce": self.task_offset, "tckd": self.target_offset, "nckd": self.rest_offset}

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        others = student.logits.shape[1] - 1
        k = kept_classes(batch.epoch, self.mask_epochs, self.first_share, others)
        tckd, nckd = deepkd_terms(student.logits, teacher.logits, batch.target, self.temperature, k)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "tckd": self.alpha * tckd.mean(),
            "nckd": self.beta * nckd.mean(),
        }
