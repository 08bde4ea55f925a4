"""Softmax regression representation learning: the student's features serve the teacher's classifier."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import mse_loss

from kdbench.method import Needs
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, fan_out_normal


@register
class SRRL(PlusKD):
    """Softmax regression representation learning (Yang et al., ICLR 2021, OpenReview ZzwDy_wiWv).

    Equation: L = ce_weight CE + kd_weight T^2 KL + feature_weight mean (h - f^t)^2 + regression_weight
    mean (c^t(h) - c^t(f^t))^2, h = mean over space of ReLU(BN(conv1x1(F^s))), F^s the student's last map,
    f^t the teacher's embedding, c^t its frozen classifier; means over samples and channels or classes.
    fidelity: code.
    Deviations: none. (The SimKD repository's copy connects after pooling.)
    """

    needs: ClassVar[Needs] = Needs(features=True, embedding=True, classifier=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the connector
    weights: ClassVar = {
        "ce_weight": "ce",
        "feature_weight": "feature",
        "regression_weight": "regression",
    }
    positive: ClassVar = ("kd_temperature",)

    # the release; cls_KD takes regression_weight 5
    feature_weight: float = 1.0
    regression_weight: float = 1.0

    def build(self, context):
        outputs = context.teacher.embedding_size
        return fan_out_normal(
            nn.Sequential(
                conv1x1(context.student.feature_channels, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
            )
        )

    def loss(self, batch, student, teacher, modules):
        connected = modules(student.features).mean(dim=(2, 3))
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "feature": self.feature_weight * mse_loss(connected, teacher.embedding),
            "regression": self.regression_weight * mse_loss(teacher.classify(connected), teacher.logits),
        }
