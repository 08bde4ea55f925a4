"""Dual-head distillation: one head learns from the labels, another from the teacher."""

from dataclasses import field
from math import log
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from kdbench.method import Batch, Context, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

CLAMP = log((1 - 1e-8) / 1e-8)  # the logit of the released code's bounds 1e-8 and 1 - 1e-8


def binary_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, clamp: bool = False
) -> Tensor:
    """T^2 sum_c KL(Bern(1/2) || Bern(sigmoid((s_c - t_c)/T))), mean over the batch; 0 where s = t.

    ``clamp`` bounds (s - t)/T, beyond which there is no gradient, as in the released code.

    >>> binary_kl(torch.tensor([[2.0]]), torch.tensor([[0.0]]), temperature=2.0)
    tensor(0.4805)
    """
    gap = (student_logits - teacher_logits) / temperature
    gap = gap.clamp(-CLAMP, CLAMP) if clamp else gap
    return temperature**2 * (0.5 * (softplus(gap) + softplus(-gap)) - log(2)).sum(dim=1).mean()


@register
class DHKD(Method):
    """Dual-head distillation: a second head learns from the teacher, the main head from the labels.

    Equation: L = ce_weight CE(main head) + alpha T^2/B sum_i sum_c KL(Bern(1/2) || Bern(sigmoid((a_c -
    t_c)/T))), a the logits of a second head on the student's embedding; it is dropped after training.

    Deviations: form="paper" does not bound the sigmoid, form="code" bounds it at 1e-8 as the released code does. The
    released head's dropout of 0.1 is left out. align=True is the release's --ga, which its example for CIFAR-100 sets
    and its defaults and its example for ImageNet do not: where the gradient of the second head's loss, over all
    parameters, has a negative product with that of CE, its part along CE's is taken out, by a backward pass for each.
    """

    paper = Paper(
        title="Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an Auxiliary Head",
        authors=("Penghui Yang", "Chen-Chen Zong", "Sheng-Jun Huang", "Lei Feng", "Bo An"),
        venue="KDD",
        year=2025,
        arxiv="2411.08937",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(0.5, 8.0),
        "alpha": log_range(0.1, 10),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the second head
    min_batch: ClassVar[int] = 2
    shift_invariant: ClassVar[bool] = False  # logits are compared as they are
    weights: ClassVar = {"ce_weight": "ce", "alpha": "binary"}
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 settings; ImageNet: alpha 0.1, linear head
    temperature: float = 2.0
    alpha: float = 1.0
    ce_weight: float = 1.0
    head: Literal["mlp", "linear"] = "mlp"
    hidden: int = 200
    form: Literal["paper", "code"] = "paper"
    align: bool = field(default=False, metadata={"neutral": False})

    @property
    def leading_term(self) -> str | None:
        """CE's gradient leads where gradients are aligned."""
        return "ce" if self.align else None

    def build(self, context: Context) -> nn.Module:
        size, classes = context.student.embedding_size, context.num_classes
        if self.head == "linear":
            return nn.Linear(size, classes)
        first = nn.Linear(size, self.hidden, bias=False)
        return nn.Sequential(first, nn.BatchNorm1d(self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes))

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        second = modules(student.embedding)
        divergence = binary_kl(second, teacher.logits, self.temperature, self.form == "code")
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "binary": self.alpha * divergence,
        }
