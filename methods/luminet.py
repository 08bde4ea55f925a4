"""LumiNet: logits are standardised class by class over the batch before they are compared.

B samples, C classes, T temperature; logits are [B, C].
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, warmup
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def perception(logits: Tensor, eps: float = 1e-5) -> Tensor:
    """(z - mean) / sqrt(var + eps) of each class over the batch, biased variance -> [B, C].

    >>> perception(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    tensor([[-1.0000,  0.0000],
            [ 1.0000,  0.0000]])
    """
    centred = logits - logits.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + eps).sqrt()


def luminet_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(h^t/T) || softmax(h^s/T)) of the perceptions h, mean over the batch.

    >>> luminet_kl(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[3.0, 5.0], [1.0, 5.0]]), 1.0)
    tensor(0.4621)
    """
    pair = ((perception(z) / temperature).log_softmax(dim=1) for z in (student_logits, teacher_logits))
    return kl(*pair).mean()


@register
class LumiNet(Method):
    """LumiNet: kd on logits that are standardised class by class over the batch.

    Equation: L = ce_weight CE + min(epoch/warmup_epochs, 1) alpha^2 mean_i KL(softmax(h^t_i/T) ||
    softmax(h^s_i/T)), h_ic = (z_ic - mean_i z_ic) / sqrt(var_i z_ic + 1e-5) over the batch.

    Deviations: none. As released, alpha^2 stands in place of T^2, and the gradient flows through mean and
    variance.
    """

    paper = Paper(
        title="LumiNet: Perception-Driven Knowledge Distillation via Statistical Logit Calibration",
        authors=(
            "Md. Ismail Hossain",
            "M M Lutfe Elahi",
            "Sameera Ramasinghe",
            "Ali Cheraghian",
            "Fuad Rahman",
            "Nabeel Mohammed",
            "Shafin Rahman",
        ),
        venue="TMLR",
        year=2025,
        arxiv="2310.03669",
        journal=True,
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha": log_range(3.3, 330),
    }

    coupled: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2  # one sample is its own mean
    weights: ClassVar = {"ce_weight": "ce", "alpha": "kd"}
    zero_at_match: ClassVar = ("kd",)
    shift_invariant: ClassVar[bool] = False  # a constant in one row moves every class's mean
    positive: ClassVar = ("temperature",)

    # the release's configuration for resnet32x4 -> resnet8x4; per pair alpha 33..75, T 4 or 8, ce_weight 1 or 2
    temperature: float = 4.0
    alpha: float = 33.0
    ce_weight: float = 2.0
    warmup_epochs: int = 20

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        divergence = luminet_kl(student.logits, teacher.logits, self.temperature)
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": warmup(batch.epoch, self.warmup_epochs) * self.alpha**2 * divergence,
        }
