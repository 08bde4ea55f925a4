"""Factor transfer: an autoencoder compresses the teacher's last map; a translator predicts the code."""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, pool_to_smaller, unit


def factor_loss(student: Tensor, teacher: Tensor, power: int = 2, norm: int = 1) -> Tensor:
    """The released form: mean |a(s) - a(t)|^norm, a the mean over channels of f^power at unit length.

    >>> maps = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    >>> factor_loss(maps, maps.flip(3), power=1)
    tensor(0.2000)
    """
    pair = (unit(f.pow(power).mean(dim=1).flatten(1)) for f in pool_to_smaller(student, teacher))
    gap = torch.sub(*pair).abs()
    return (gap if norm == 1 else gap.pow(norm)).mean()


def paper_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The paper's form: mean absolute difference of the flattened factors at unit length.

    >>> maps = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    >>> paper_loss(maps, maps.flip(3))
    tensor(0.2000)
    """
    pair = (unit(f.flatten(1)) for f in pool_to_smaller(student, teacher))
    return torch.sub(*pair).abs().mean()


def convolutions(*channels: int, transposed: bool = False, norm: bool = False) -> nn.Sequential:
    """3x3 convolutions between the ``channels``, each followed by a BatchNorm if ``norm`` and a leaky ReLU."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers.append(kind(inputs, outputs, 3, padding=1))
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


@register
class FT(PlusKD):
    """Factor transfer: match compressed codes (factors) of the last maps.

    Equation: L = ce_weight CE + kd_weight T^2 KL and, until init_epochs, paraphrase_weight mean (D(E(F^t)) -
    F^t)^2, then ft_weight mean |a(R(F^s)) - a(E(F^t))|: F the last stage's maps, E, D the paraphraser (frozen
    after init_epochs), R the translator, a(f) = the channels' mean of f^2 over its norm (form="code") or f
    over its norm (form="paper").

    Deviations: the default is RepDistiller's form, which compares attention maps of the factors. The
    paraphraser learns during the student's first epochs, which use the labels only; the release trains it for 30
    epochs before the student, mostly at rate 0.01. Here its rate is paraphrase_weight times the student's (0.05).
    """

    paper = Paper(
        title="Paraphrasing Complex Network: Network Compression via Factor Transfer",
        authors=("Jangho Kim", "SeongUk Park", "Nojun Kwak"),
        venue="NeurIPS",
        year=2018,
        arxiv="1802.04977",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "ft_weight": log_range(20, 2000),
        "paraphrase_weight": log_range(0.02, 2),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the translator
    weights: ClassVar = {"ce_weight": "ce", "ft_weight": "ft", "paraphrase_weight": "paraphrase"}
    positive: ClassVar = ("kd_temperature", "rate")

    # RepDistiller, CIFAR-100; the paper has 500
    ft_weight: float = 200.0
    paraphrase_weight: float = 0.2
    rate: float = 0.5  # the factor's channels, as a share of the teacher's
    form: Literal["code", "paper"] = "code"
    init_epochs: int = 30

    def build(self, context: Context) -> nn.ModuleDict:
        student, teacher = (facts.stages[-1].channels for facts in (context.student, context.teacher))
        factor = max(1, int(teacher * self.rate))
        return nn.ModuleDict(
            {
                "encoder": convolutions(teacher, teacher, factor, factor),
                "decoder": convolutions(factor, factor, teacher, teacher, transposed=True),
                "translator": convolutions(student, student, factor, factor, norm=True),
            }
        )

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleDict) -> Terms:
        terms = self.task_terms(batch, student.logits, teacher.logits)
        target = teacher.stages[-1]
        if batch.epoch <= self.init_epochs:
            copied = modules["decoder"](modules["encoder"](target))
            terms["paraphrase"] = self.paraphrase_weight * mse_loss(copied, target)
            return {**terms, "ft": 0.0 * terms["ce"]}
        with torch.no_grad():
            factor = modules["encoder"](target)
        translated = modules["translator"](student.stages[-1])
        distance = factor_loss if self.form == "code" else paper_loss
        return {**terms, "paraphrase": 0.0 * terms["ce"], "ft": self.ft_weight * distance(translated, factor)}
