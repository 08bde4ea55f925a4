"""Alpha-beta-divergence distillation: one family of divergences between forward and reverse KL.

B samples, C classes, T temperature; log-probabilities are [B, C].
"""

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import standardize
from kdbench.method import Batch, Method, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register


def alpha_beta_divergence(
    student_log_probs: Tensor, teacher_log_probs: Tensor, alpha: float, beta: float, exact: bool = False
) -> Tensor:
    """The alpha-beta divergence of the teacher's p from the student's q, summed over classes -> [B].

    Its limits for alpha = 0, beta = 0 and alpha + beta = 0 divide by the square of the other number; the released
    code divides by the number itself, unless ``exact``. alpha = 1, beta = 0 is KL(teacher || student).

    >>> student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
    >>> alpha_beta_divergence(student, teacher, alpha=1.0, beta=0.0)
    tensor([0.1927])
    >>> alpha_beta_divergence(student, teacher, alpha=1.0, beta=1.0)  # half the squared distance
    tensor([0.0900])
    """
    q, p = student_log_probs, teacher_log_probs
    if alpha == 0 and beta == 0:
        return 0.5 * (q - p).square().sum(dim=1)
    order = 2 if exact else 1
    if alpha == 0:
        scaled = (beta * q).exp()
        return (scaled * beta * (q - p) - scaled + (beta * p).exp()).sum(dim=1) / beta**order
    if beta == 0:
        scaled = (alpha * p).exp()
        return (scaled * alpha * (p - q) - scaled + (alpha * q).exp()).sum(dim=1) / alpha**order
    if alpha + beta == 0:
        ratio = alpha * (p - q)
        return (ratio.exp() - ratio - 1).sum(dim=1) / alpha**order
    both = alpha + beta
    mixed = (alpha * p + beta * q).exp()
    ends = alpha / both * (both * p).exp() + beta / both * (both * q).exp()
    return (ends - mixed).sum(dim=1) / (alpha * beta)


@register
class ABKD(Method):
    """ABKD: the alpha-beta divergence in place of KL; alpha weights hard classes, beta the student's confident ones.

    Equation: L = ce_weight CE + kd_weight mean_i D(softmax(t_i/T), softmax(s_i/T)), without T^2,
    D(p, q) = -1/(alpha beta) sum_c [p_c^alpha q_c^beta - (alpha p_c^(alpha + beta) + beta q_c^(alpha + beta))
    / (alpha + beta)].

    Deviations: powers of probabilities are exponentials of log-probabilities: the same value without NaN at
    large logits. limits="exact" is the divergence's own limit where alpha, beta or their sum is 0; the
    released formulas lack a factor there. `standardize` is lskd's; the release pairs it with alpha=0.9 beta=0.3
    kd_weight=9 ce_weight=0.1.
    """

    paper = Paper(
        title="ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via "
        "α-β-Divergence",
        authors=("Guanghui Wang", "Zhiyong Yang", "Zitai Wang", "Shi Wang", "Qianqian Xu", "Qingming Huang"),
        venue="ICML",
        year=2025,
        arxiv="2505.04560",
    )
    family = "logit"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "alpha": linear_range(0.1, 1.2),
        "beta": linear_range(0.1, 1.2),
        "kd_weight": log_range(3.2, 320),
    }

    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd"}
    zero_at_match: ClassVar = ("kd",)
    positive: ClassVar = ("temperature",)

    # the release's command for resnet56 -> resnet20
    temperature: float = 4.0
    alpha: float = 0.8
    beta: float = 0.3
    kd_weight: float = 32.0
    ce_weight: float = 1.0
    limits: Literal["code", "exact"] = "code"
    standardize: bool = field(default=False, metadata={"neutral": False})

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        logits = (student.logits, teacher.logits)
        pair = map(standardize, logits) if self.standardize else logits
        q, p = ((z / self.temperature).log_softmax(dim=1) for z in pair)
        divergence = alpha_beta_divergence(q, p, self.alpha, self.beta, self.limits == "exact")
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * divergence.mean(),
        }
