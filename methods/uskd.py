"""Universal self-distillation: soft labels from the student itself, no teacher.

B samples, C classes; logits are [B, C]. The weak head classifies the pooled map of the last stage but one.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import drop_target
from kdbench.method import Batch, Context, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register


def self_target(logits: Tensor, target: Tensor) -> Tensor:
    """-w_i log p_y, w = p_y^2 + 1 - mean_i p_y^2 without gradient, mean over the batch.

    >>> self_target(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(0.6931)
    """
    log_hit = logits.log_softmax(dim=1).gather(1, target[:, None])
    squared = (2 * log_hit.detach()).exp()
    return -((squared + 1 - squared.mean()) * log_hit).mean()


def zipf_labels(logits: Tensor, weak_logits: Tensor, target: Tensor, logs: bool) -> Tensor:
    """1/rank of every class, its target column dropped, renormalised -> [B, C-1].

    Classes are ranked by the sum of both heads' scores, each divided by 1 - its score at the target; ``logs``
    uses the student's log-probability as its score, as the released code does.

    >>> logits = torch.tensor([[3.0, 2.0, 1.0]])
    >>> zipf_labels(logits, logits, torch.tensor([0]), logs=False)
    tensor([[0.6000, 0.4000]])
    """
    score = logits.log_softmax(dim=1)
    ranked = sum(
        value / (1 - value.gather(1, target[:, None]) + 1e-6)
        for value in (weak_logits.softmax(dim=1), score if logs else score.exp())
    )
    rank = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # type: ignore[union-attr]
    zipf = drop_target(1 / (rank + 1).to(logits.dtype), target)
    return zipf / zipf.sum(dim=1, keepdim=True)


def self_rest(logits: Tensor, weak_logits: Tensor, target: Tensor, logs: bool = True) -> Tensor:
    """Cross-entropy of the other classes, renormalised, under their Zipf labels, mean over the batch.

    >>> self_rest(torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([0]))
    tensor(0.6931)
    """
    labels = zipf_labels(logits.detach(), weak_logits.detach(), target, logs)
    return -(labels * drop_target(logits, target).log_softmax(dim=1)).sum(dim=1).mean()


@register
class USKD(Method):
    """Universal self-distillation: soft labels from the student itself, without a teacher.

    Equation: L = ce_weight CE - alpha mean_i w_i log p_y - beta mean_i sum_{c != y} zipf_c log q_c
    + mu CE(weak head, 0.9 onehot + 0.1/C), w = p_y^2 + 1 - mean_i p_y^2, zipf_c ~ 1/rank(c), q = p without
    class y.

    Deviations: form="code" ranks by the weak head's probabilities and the student's LOG-probabilities, a mistake
    in the released code; form="paper" uses probabilities of both. Labels are class numbers, so the release's
    mixup branch is left out. The weak head reads the last stage but one, the released choice for resnet18.
    """

    paper = Paper(
        title="From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss "
        "and Customized Soft Labels",
        authors=("Zhendong Yang", "Ailing Zeng", "Zhe Li", "Tianke Zhang", "Chun Yuan", "Yu Li"),
        venue="ICCV",
        year=2023,
        arxiv="2303.13005",
    )
    family = "self"
    fidelity = "code"
    space = {
        "alpha": log_range(0.01, 1),
        "beta": log_range(0.01, 1),
        "mu": log_range(0.01, 1),
    }

    needs: ClassVar[Needs] = Needs(teacher=False, stages=True)
    coupled: ClassVar[bool] = True  # w has a batch mean
    partial_gradient: ClassVar[bool] = True  # w and the Zipf labels are constants
    weights: ClassVar = {"ce_weight": "ce", "alpha": "target", "beta": "rest", "mu": "weak"}

    # the release's CIFAR-100 configuration; its ImageNet default: alpha 1, beta 0.1, mu 0.005
    alpha: float = 0.1
    beta: float = 0.1
    mu: float = 0.1
    ce_weight: float = 1.0
    form: Literal["code", "paper"] = "code"

    def skip(self, context: Context) -> str | None:
        return None if len(context.student.stages) > 1 else "uskd's weak head needs a student of two stages"

    def build(self, context: Context) -> nn.Linear:
        return nn.Linear(context.student.stages[-2].channels, context.num_classes)

    def loss(self, batch: Batch, student: Views, teacher: None, modules: nn.Linear) -> Terms:
        weak = modules(student.stages[-2].mean(dim=(2, 3)))
        rest = self_rest(student.logits, weak, batch.target, self.form == "code")
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "target": self.alpha * self_target(student.logits, batch.target),
            "rest": self.beta * rest,
            "weak": self.mu * cross_entropy(weak, batch.target, label_smoothing=0.1),
        }
