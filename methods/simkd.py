"""SimKD: the student's features are projected onto the teacher's and classified by the teacher's head."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import LinearHead, PlusKD, conv1x1, conv3x3, needs_linear_head, pool


class Reuse(nn.Module):
    """The projector to the teacher's last map and a frozen copy of the teacher's classifier."""

    def __init__(self, context: Context, factor: int) -> None:
        super().__init__()
        student, teacher = context.student, context.teacher
        outputs = teacher.feature_channels
        middle = max(1, outputs // factor)
        self.size = min(student.feature_size, teacher.feature_size)
        self.transfer = nn.Sequential(
            *(conv1x1(student.feature_channels, middle), nn.BatchNorm2d(middle), nn.ReLU()),
            *(conv3x3(middle, middle), nn.BatchNorm2d(middle), nn.ReLU()),
            *(conv1x1(middle, outputs), nn.BatchNorm2d(outputs), nn.ReLU()),
        )
        self.head = LinearHead(teacher.classify, context, teacher.embedding_size)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected map and the logits of the student's last map."""
        projected = self.transfer(pool(features, self.size))
        return projected, self.head(projected.mean(dim=(2, 3)))


@register
class SimKD(PlusKD):
    """Reused teacher classifier: project the student's features onto the teacher's and classify them with its head.

    Equation: L = feature_weight mean (P(F^s) - F^t)^2, F the last maps (the larger one pooled), P = 1x1, 3x3
    and 1x1 convolutions with BatchNorm and ReLU, (teacher's channels)/factor wide inside. The prediction is
    the teacher's classifier on the mean of P(F^s); P stays in the student.

    Deviations: none. ce_weight and kd_weight, both 0 as published, act on that prediction.
    """

    paper = Paper(
        title="Knowledge Distillation with the Reused Teacher Classifier",
        authors=("Defang Chen", "Jian-Ping Mei", "Hailin Zhang", "Can Wang", "Yan Feng", "Chun Chen"),
        venue="CVPR",
        year=2022,
        arxiv="2203.14001",
    )
    family = "feature"
    fidelity = "paper"
    space = {
        "feature_weight": log_range(0.1, 10),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(features=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the projector
    keeps_modules: ClassVar[bool] = True
    weights: ClassVar = {"feature_weight": "feature"}
    positive: ClassVar = ("kd_temperature", "factor")

    # the release
    feature_weight: float = 1.0
    factor: int = 2
    ce_weight: float = 0.0

    def skip(self, context: Context) -> str | None:
        return needs_linear_head("simkd", teacher=context.teacher)

    def build(self, context: Context) -> Reuse:
        return Reuse(context, self.factor)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Reuse) -> Terms:
        projected, logits = modules(student.features)
        return {
            **self.task_terms(batch, logits, teacher.logits),
            "feature": self.feature_weight * mse_loss(projected, pool(teacher.features, modules.size)),
        }

    def predict(self, student: Views, modules: Reuse) -> Tensor:
        return modules(student.features)[1]
