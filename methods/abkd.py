"""Alpha-beta-divergence distillation: one family of divergences between forward and reverse KL.

B samples, C classes, T temperature; log-probabilities are [B, C].
"""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.method import Method
from kdbench.registry import register


def alpha_beta_divergence(
    student_log_probs: Tensor, teacher_log_probs: Tensor, alpha: float, beta: float, exact: bool = False
) -> Tensor:
    """The alpha-beta divergence of the teacher's p from the student's q, summed over classes -> [B].

    -1/(alpha beta) sum_c [p^alpha q^beta - alpha/(alpha + beta) p^(alpha + beta) - beta/(alpha + beta) q^(alpha +
    beta)]. Its limits for alpha = 0, beta = 0 and alpha + beta = 0 carry the square of the other number; the released
    code divides by the number itself unless ``exact``. alpha = 1, beta = 0 is KL(teacher || student).
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
    """ABKD: alpha-beta-divergence knowledge distillation (Wang et al., ICML 2025, arXiv:2505.04560).

    Equation: L = ce_weight CE + kd_weight mean_i D(softmax(t_i/T), softmax(s_i/T)), D(p, q) = -1/(alpha beta) sum_c
    [p^alpha q^beta - alpha/(alpha + beta) p^(alpha + beta) - beta/(alpha + beta) q^(alpha + beta)]; no T^2.
    fidelity: code.
    Deviations: powers of probabilities are exponentials of log-probabilities: same value, no NaN at large logits.
    limits="exact" has the divergence's own limits where alpha, beta or their sum is 0; the released formulas there
    lack a factor.
    """

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

    def loss(self, batch, student, teacher, modules):
        pair = ((z / self.temperature).log_softmax(dim=1) for z in (student.logits, teacher.logits))
        divergence = alpha_beta_divergence(*pair, self.alpha, self.beta, self.limits == "exact")
        return {
            "ce": self.ce_weight * cross_entropy(student.logits, batch.target),
            "kd": self.kd_weight * divergence.mean(),
        }
