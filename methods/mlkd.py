"""Multi-level logit distillation: instance, batch and class alignment at several temperatures on two views.

B samples, C classes, T temperature; logits are [B, C].
"""

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.losses import gram, soft_kl, standardize
from kdbench.method import Batch, Method, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

POOL = (3.0, 5.0, 2.0, 6.0)  # temperatures in addition to the base one
SLIPPED = (2.0, 6.0)  # where the released code uses the weak logits in the strong view's instance term

View = tuple[Tensor, Tensor]  # student's and teacher's logits


def level_gaps(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """||P^t P^tT - P^s P^sT||_F^2 / B and ||P^tT P^t - P^sT P^s||_F^2 / C, P = softmax(z/T); both scalars.

    >>> level_gaps(torch.zeros(1, 2), torch.tensor([[1e3, 0.0]]), temperature=1.0)
    (tensor(0.2500), tensor(0.3750))
    """
    student = (student_logits / temperature).softmax(dim=1)
    teacher = (teacher_logits / temperature).softmax(dim=1)
    batch = (gram(teacher) - gram(student)).square().sum() / student.shape[0]
    classes = (gram(teacher.T) - gram(student.T)).square().sum() / student.shape[1]
    return batch, classes


def mlkd_paper(views: tuple[View, ...], temperature: float, z_score: bool = False) -> tuple[Tensor, ...]:
    """The paper's (instance, batch, class): all terms on all views at all temperatures of {base} + POOL.

    >>> mlkd_paper(((torch.eye(2), torch.eye(2)),), temperature=4.0)
    (tensor(0.), tensor(0.), tensor(0.))
    """
    instance, batch, classes = [], [], []
    for t in dict.fromkeys((temperature, *POOL)):
        for view in views:
            instance.append(soft_kl(*(map(standardize, view) if z_score else view), t))  # type: ignore[call-arg]
            gaps = level_gaps(*view, t)
            batch.append(gaps[0])
            classes.append(gaps[1])
    return sum(instance), sum(batch), sum(classes)  # type: ignore[return-value]


def mask_fractions(teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of samples (by confidence) and of classes (by mass in the batch) at or below the median.

    >>> mask_fractions(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    (tensor(0.6667), tensor(0.5000))
    """
    probs = teacher_logits.softmax(dim=1)
    values = (probs.amax(dim=1), probs.sum(dim=0))
    sample, classes = ((v <= _median(v)).to(v.dtype).mean() for v in values)
    return sample, classes


def _median(values: Tensor) -> Tensor:
    """The median as torch.quantile(values, 0.5) gives it, without that function's wait for the device."""
    ordered, n = values.sort().values, len(values)
    return ordered[(n - 1) // 2].lerp(ordered[n // 2], 0.5)


def mlkd_code(weak: View, strong: View, temperature: float, z_score: bool = False) -> tuple[Tensor, ...]:
    """The release's (instance, batch, class): masks that only scale, the slip, no strong Gram terms.

    >>> mlkd_code((torch.eye(2), torch.eye(2)), (torch.eye(2), torch.eye(2)), temperature=4.0)
    (tensor(0.), tensor(0.), tensor(0.))
    """
    of_samples, of_classes = mask_fractions(weak[1])
    weak_z, strong_z = (tuple(map(standardize, v)) if z_score else v for v in (weak, strong))
    instance, batch, classes = [], [], []
    for place, t in enumerate((temperature, *POOL)):
        weak_kl = soft_kl(*weak_z, t)  # type: ignore[call-arg]
        slipped = place > 0 and t in SLIPPED
        instance.append(of_samples * weak_kl + (weak_kl if slipped else soft_kl(*strong_z, t)))  # type: ignore[call-arg]
        gaps = level_gaps(*weak, t)
        batch.append(of_samples * gaps[0])
        classes.append(of_classes * gaps[1])
    return sum(instance), sum(batch), sum(classes)  # type: ignore[return-value]


@register
class MLKD(Method):
    """Multi-level logit distillation: match instances, batch and classes at several temperatures on two views.

    Equation: L = ce_weight (CE(weak) + CE(strong)) + kd_weight sum over both views and T in {temperature, 3,
    5, 2, 6} of T^2 mean_i KL(p^t_i || p^s_i) + ||P^t P^tT - P^s P^sT||_F^2 / B + ||P^tT P^t - P^sT P^s||_F^2
    / C.

    Deviations: form="paper" has every term on both views and no mask. form="code" follows the release: its
    confidence masks multiply scalars, so they only scale the weak terms by the masked fraction (in the
    logits' dtype, float32 in training, as there); the strong instance term uses the weak logits at T = 2 and
    6; the strong batch and class terms are left out; a base temperature of 2, 3, 5 or 6 counts twice.
    `standardize` is lskd's, on the instance term only.
    """

    paper = Paper(
        title="Multi-Level Logit Distillation",
        authors=("Ying Jin", "Jiaqi Wang", "Dahua Lin"),
        venue="CVPR",
        year=2023,
    )
    family = "logit"
    fidelity = "paper"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9),
    }

    needs: ClassVar[Needs] = Needs(views=("weak", "strong"))
    coupled: ClassVar[bool] = True
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": ("instance", "batch", "class")}
    zero_at_match: ClassVar = ("instance", "batch", "class")
    positive: ClassVar = ("temperature",)

    # the release's CIFAR-100 configuration; ImageNet: T 1, weights 0.5/0.5
    temperature: float = 4.0
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    form: Literal["paper", "code"] = "paper"
    standardize: bool = field(default=False, metadata={"neutral": False})

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        weak, strong = ((student[v].logits, teacher[v].logits) for v in self.needs.views)
        if self.form == "code":
            levels = mlkd_code(weak, strong, self.temperature, self.standardize)
        else:
            levels = mlkd_paper((weak, strong), self.temperature, self.standardize)
        ce = cross_entropy(weak[0], batch.target) + cross_entropy(strong[0], batch.target)
        instance, of_batch, of_class = (self.kd_weight * level for level in levels)
        return {"ce": self.ce_weight * ce, "instance": instance, "batch": of_batch, "class": of_class}
