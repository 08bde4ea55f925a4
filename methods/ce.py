"""Cross-entropy on the hard labels: the baseline of every other method."""

from typing import ClassVar

from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.method import Batch, Method, Needs, Paper, Terms, Views
from kdbench.registry import register


@register
class CE(Method):
    """Cross-entropy on the labels, without a teacher.

    Equation: L = -mean_i log softmax(z_i)[y_i].

    Deviations: none.
    """

    paper = Paper(
        title="Probabilistic Interpretation of Feedforward Classification Network Outputs, with Relationships to "
        "Statistical Pattern Recognition",
        authors=("John S. Bridle",),
        venue="Neurocomputing, NATO ASI Series F68",
        year=1990,
    )
    family = "plain"
    fidelity = "paper"

    needs: ClassVar[Needs] = Needs(teacher=False)

    def loss(self, batch: Batch, student: Views, teacher: None, modules: nn.Module) -> Terms:
        return {"ce": cross_entropy(student.logits, batch.target)}
