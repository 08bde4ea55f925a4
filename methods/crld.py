"""Cross-view regularised distillation: the teacher's confident predictions teach both views."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import kl
from kdbench.method import Batch, Method, Needs, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register


def confident(teacher_logits: Tensor, threshold: float) -> Tensor:
    """1 where the teacher's largest probability reaches ``threshold``, else 0 -> [B].

    >>> confident(torch.tensor([[9.0, 0.0], [0.1, 0.0]]), threshold=0.9)
    tensor([1., 0.])
    """
    return (teacher_logits.softmax(dim=1).amax(dim=1) >= threshold).to(teacher_logits.dtype)


def scaled_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(t/T) || softmax(s/T)), per sample -> [B].

    >>> scaled_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]]), 4.0)
    tensor([1.7751])
    """
    pair = ((z / temperature).log_softmax(dim=1) for z in (student_logits, teacher_logits))
    return temperature**2 * kl(*pair)


@register
class CRLD(Method):
    """Cross-view logit distillation: the teacher's confident predictions on two views teach both views.

    Equation: L = ce_weight (CE(s_w) + CE(s_s)) + T^2 mean_i {
    within_weight 1[conf(t_w) >= within_threshold] (KL(t_w||s_w) + KL(t_s||s_s))
    + cross_weight 1[conf(t_s) >= cross_threshold] (KL(t_w||s_s) + KL(t_s||s_w)) };
    t, s teacher and student, index w, s the weak and the strong view, conf the largest probability (T = 1).

    Deviations: unknown against its own release; it is written from the copy in DeepKD's repository. As there,
    the weak view's confidence selects the samples of both within-view terms.
    """

    paper = Paper(
        title="Cross-View Consistency Regularisation for Knowledge Distillation",
        authors=("Weijia Zhang", "Dongnan Liu", "Weidong Cai", "Chao Ma"),
        venue="ACM MM",
        year=2024,
        arxiv="2412.16493",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "within_weight": log_range(0.2, 20),
        "cross_weight": log_range(0.05, 5),
        "within_threshold": linear_range(0.5, 0.95),
        "cross_threshold": linear_range(0.05, 0.5),
    }

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    weights: ClassVar = {"ce_weight": "ce", "within_weight": "within", "cross_weight": "cross"}
    zero_at_match: ClassVar = ("within",)
    positive: ClassVar = ("temperature",)

    # the code's defaults; its resnet32x4 -> resnet8x4 configuration has weights 1 and 0.5
    temperature: float = 4.0
    within_weight: float = 2.0
    cross_weight: float = 0.5
    within_threshold: float = 0.9
    cross_threshold: float = 0.2
    ce_weight: float = 1.0

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        views = self.needs.views
        s, t = ({v: model[v].logits for v in views} for model in (student, teacher))
        divergence = {(a, b): scaled_kl(s[b], t[a], self.temperature) for a in views for b in views}
        within = divergence["weak", "weak"] + divergence["strong", "strong"]
        cross = divergence["weak", "strong"] + divergence["strong", "weak"]
        return {
            "ce": self.ce_weight * sum(cross_entropy(s[v], batch.target) for v in views),  # type: ignore[dict-item]
            "within": self.within_weight * (confident(t["weak"], self.within_threshold) * within).mean(),
            "cross": self.cross_weight * (confident(t["strong"], self.cross_threshold) * cross).mean(),
        }
