"""Softmax regression representation learning: the student's features serve the teacher's classifier."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import mse_loss

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, fan_out_normal


@register
class SRRL(PlusKD):
    """Softmax regression representation learning: fit the student's features to the teacher's classifier.

    Equation: L = ce_weight CE + kd_weight T^2 KL + feature_weight mean (h - f^t)^2 + regression_weight
    mean (c^t(h) - c^t(f^t))^2, h = mean over space of ReLU(BN(conv1x1(F^s))), F^s the student's last map,
    f^t the teacher's embedding, c^t its frozen classifier; means over samples and channels or classes.

    Deviations: none. (The copy in SimKD's repository connects after pooling.)
    """

    paper = Paper(
        title="Knowledge Distillation via Softmax Regression Representation Learning",
        authors=("Jing Yang", "Brais Martinez", "Adrian Bulat", "Georgios Tzimiropoulos"),
        venue="ICLR",
        year=2021,
        url="https://openreview.net/forum?id=ZzwDy_wiWv",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "feature_weight": log_range(0.1, 10),
        "regression_weight": log_range(0.1, 10),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(features=True, embedding=True, classifier=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the connector
    weights: ClassVar = {
        "ce_weight": "ce",
        "feature_weight": "feature",
        "regression_weight": "regression",
    }
    positive: ClassVar = ("kd_temperature",)

    # the release; cls_KD uses regression_weight 5
    feature_weight: float = 1.0
    regression_weight: float = 1.0

    def build(self, context: Context) -> nn.Module:
        outputs = context.teacher.embedding_size
        return fan_out_normal(
            nn.Sequential(
                conv1x1(context.student.feature_channels, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
            )
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Sequential) -> Terms:
        connected = modules(student.features).mean(dim=(2, 3))
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "feature": self.feature_weight * mse_loss(connected, teacher.embedding),
            "regression": self.regression_weight * mse_loss(teacher.classify(connected), teacher.logits),
        }
