"""Cross-entropy on the hard labels: what every other method is measured against."""

from typing import ClassVar

from torch.nn.functional import cross_entropy

from kdbench.method import Method, Needs
from kdbench.registry import register


@register
class CE(Method):
    """Cross-entropy, no teacher (Bridle, NATO ASI F68 1990).

    Equation: L = -mean_i log softmax(z_i)[y_i].
    fidelity: paper.
    Deviations: none.
    """

    needs: ClassVar[Needs] = Needs(teacher=False)

    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}
