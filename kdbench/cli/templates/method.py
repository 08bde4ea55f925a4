"""mymethod: one sentence that says what it does. B samples, C classes; logits are [B, C]."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Batch, Method, Paper, Terms, Views, log_range
from kdbench.registry import register


def mymethod_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, sharpen: float
) -> Tensor:
    """T^2 KL(softmax(a t/T) || softmax(s/T)), mean over the batch, a = sharpen."""
    return soft_kl(student_logits, sharpen * teacher_logits, temperature)


@register
class Mymethod(Method):
    """Sharpened distillation: match the teacher's softened probabilities after scaling its logits.

    Equation: L = CE + weight T^2 mean_i KL(softmax(sharpen t_i/T) || softmax(s_i/T)).
    Deviations: none.
    """

    paper = Paper(title="The Title", authors=("Your Name",), venue="Venue", year=2026, arxiv="0000.00000")
    family = "logit"
    fidelity = "paper"
    version = 1  # raise it when the formula changes: older rows are then another method's
    space = {"temperature": log_range(1, 16), "sharpen": log_range(0.5, 4), "weight": log_range(0.1, 10)}

    weights = {"weight": "mymethod"}
    positive = ("temperature", "sharpen")
    temperature: float = 4.0
    sharpen: float = 1.5
    weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views | None, modules) -> Terms:
        assert teacher is not None  # `needs.teacher` is True by default
        term = mymethod_loss(student.logits, teacher.logits, self.temperature, self.sharpen)
        return {"ce": cross_entropy(student.logits, batch.target), "mymethod": self.weight * term}
