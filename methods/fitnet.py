"""FitNets: a learned regressor maps the student's middle map to the teacher's."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import mse_loss

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import ConvReg, PlusKD, pool


def hint_loss(regressed: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared error over all elements; where the sizes differ, the teacher's map is pooled.

    >>> hint_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4))
    tensor(1.)
    """
    return mse_loss(regressed, pool(teacher_map, tuple(regressed.shape[2:])))  # type: ignore[arg-type]


@register
class FitNet(PlusKD):
    """Hints: a learned regressor brings the student's middle map to the teacher's.

    Equation: L = ce_weight CE + kd_weight T^2 KL + hint_weight mean (R(F^s) - F^t)^2, R a convolution to
    the teacher's channels and size, BatchNorm and ReLU; F the map of one stage.

    Deviations: hint and labels are trained jointly, as in RepDistiller and mdistiller; the paper trains the
    hint first. Where the student's map is smaller than the teacher's, but not half its size, the teacher's is
    pooled, as in SemCKD's release. The teacher's BatchNorm stays as it was loaded, as in RepDistiller; mdistiller
    first passes an image of noise through it in training mode.
    """

    paper = Paper(
        title="FitNets: Hints for Thin Deep Nets",
        authors=(
            "Adriana Romero",
            "Nicolas Ballas",
            "Samira Ebrahimi Kahou",
            "Antoine Chassang",
            "Carlo Gatta",
            "Yoshua Bengio",
        ),
        venue="ICLR",
        year=2015,
        arxiv="1412.6550",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "hint_weight": log_range(10, 1000),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the regressor
    weights: ClassVar = {"ce_weight": "ce", "hint_weight": "hint"}
    positive: ClassVar = ("kd_temperature", "stage")

    # RepDistiller and mdistiller, CIFAR-100: their hint layer 2 counts the stem as 0
    hint_weight: float = 100.0
    stage: int = 2  # counted from 1

    def skip(self, context: Context) -> str | None:
        for role in ("student", "teacher"):
            count = len(getattr(context, role).stages)
            if count < self.stage:
                return f"the {role} has {count} stages; fitnet is to use stage {self.stage}"
        return None

    def build(self, context: Context) -> ConvReg:
        return ConvReg(context.student.stages[self.stage - 1], context.teacher.stages[self.stage - 1])

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: ConvReg) -> Terms:
        hint = hint_loss(modules(student.stages[self.stage - 1]), teacher.stages[self.stage - 1])
        return {**self.task_terms(batch, student.logits, teacher.logits), "hint": self.hint_weight * hint}
