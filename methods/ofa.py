"""One for all: every stage of the student predicts the classes, whatever the architectures.

B samples, C classes; logits are [B, C].
"""

from math import log2
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from kdbench.method import Batch, Context, ModelFacts, Needs, Paper, Terms, Views, linear_range, log_range
from kdbench.registry import register

from ._adapters import PlusKD

HEADS = 4  # of the blocks on tokens
GRID = 7  # tokens per side after the token projectors' merges


def ofa_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, eps: float, temperature: float
) -> Tensor:
    """-sum_c [(p^t_c + 1(c = y))^eps - 1(c = y)] log p^s_c, mean over the batch; softmax at T, no T^2.

    >>> ofa_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), eps=1.0, temperature=1.0)
    tensor(0.6931)
    """
    classes = torch.arange(teacher_logits.shape[1], device=target.device)
    hit = (target[:, None] == classes).to(teacher_logits.dtype)
    weight = ((teacher_logits / temperature).softmax(dim=1) + hit).pow(eps) - hit
    return -(weight * (student_logits / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Two pairs of depthwise 3x3 and pointwise convolutions with BatchNorm and ReLU; halves the size."""

    def half(channels: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        pointwise = nn.Conv2d(inputs, channels, 1, bias=False)
        return [depthwise, pointwise, nn.BatchNorm2d(channels), nn.ReLU()]

    return nn.Sequential(*half(inputs, 2), *half(outputs, 1))


class Merge(nn.Module):
    """Merge 2 x 2 tokens by LayerNorm and a linear layer: [B, D, H, W] -> [B, outputs, H/2, W/2]."""

    def __init__(self, inputs: int, outputs: int, last: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(4 * inputs), nn.Linear(4 * inputs, outputs, bias=False))
        self.activation = nn.Identity() if last else nn.GELU()

    def forward(self, maps: Tensor) -> Tensor:
        merged = self.layers(pixel_unshuffle(maps, 2).permute(0, 2, 3, 1))
        return self.activation(merged).permute(0, 3, 1, 2)


class Tokens(nn.Module):
    """From maps of tokens to logits: merges, transformer blocks, the mean token, a linear layer."""

    def __init__(self, channels: int, grid: int, blocks: int, num_classes: int) -> None:
        super().__init__()
        merges = max(int(log2(grid / GRID)), 0)
        self.merge = nn.Sequential(*(Merge(channels, channels, 0 < i == merges - 1) for i in range(merges)))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    *(channels, HEADS, 4 * channels, 0.0, "gelu"), batch_first=True, norm_first=True
                )
                for _ in range(blocks)
            )
        )
        self.classify = nn.Linear(channels, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = self.merge(maps).flatten(2).transpose(1, 2)
        return self.classify(self.blocks(tokens).mean(dim=1))


def isotropic(facts: ModelFacts) -> bool:
    """Whether all stages have one shape: blocks on tokens, not a pyramid."""
    return len({(s.channels, s.size) for s in facts.stages}) == 1 < len(facts.stages)


def projector(facts: ModelFacts, stage: int, width: int, num_classes: int) -> nn.Module:
    """The layers from stage ``stage`` (from 0) to logits, fewer near the end; ``width``: channels before the head."""
    channels, size = facts.stages[stage].channels, facts.stages[stage].size
    left = len(facts.stages) - 1 - stage
    if isotropic(facts):
        return Tokens(channels, size[0], max(left, 1), num_classes)
    layers: list[nn.Module] = [] if left else [nn.Conv2d(channels, width, 1)]
    for step in range(left):
        layers.append(separable(channels << step, width if step == left - 1 else channels << (step + 1)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def initialise(modules: nn.Module) -> nn.Module:
    """Initialise as released: normal by fan-out for convolutions, N(0, 0.02^2) and zero bias for linear layers."""
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.trunc_normal_(module.in_proj_weight, std=0.02)
    return modules


@register
class OFA(PlusKD):
    """One-for-all distillation: every stage of the student predicts the classes through its own projector.

    Equation: L = ce_weight CE + kd_weight T^2 KL + logit_weight l(s) + stage_weight sum_l l(P_l(F_l)),
    l(z) = -mean_i sum_c [(p^t_c + 1(c = y))^eps - 1(c = y)] log softmax(z/T)_c, F_l the student's stages, P_l
    projectors to class space.

    Deviations: a projector halves the map once per remaining stage, where the release counts four stages.
    Tokens come without the class token, so the blocks end in their mean, as the release does for networks
    without one. eps and T are the same at all stages.
    """

    paper = Paper(
        title="One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
        authors=("Zhiwei Hao", "Jianyuan Guo", "Kai Han", "Yehui Tang", "Han Hu", "Yunhe Wang", "Chang Xu"),
        venue="NeurIPS",
        year=2023,
        arxiv="2310.19444",
        equation="3 to 6",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "logit_weight": log_range(0.1, 10),
        "stage_weight": log_range(0.1, 10),
        "temperature": log_range(0.5, 8.0),
        "eps": linear_range(1.0, 2.0),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(stages=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the projectors of pyramids
    weights: ClassVar = {"ce_weight": "ce", "logit_weight": "logit", "stage_weight": "stage"}
    positive: ClassVar = ("kd_temperature", "temperature", "eps")

    # the release; eps is 1 on CIFAR-100 and up to 1.5 on ImageNet, by pair
    eps: float = 1.0
    temperature: float = 1.0
    stage_weight: float = 1.0
    logit_weight: float = 1.0

    def skip(self, context: Context) -> str | None:
        channels = context.student.stages[0].channels
        if isotropic(context.student) and channels % HEADS:
            return (
                f"the student's tokens have {channels} channels, which {HEADS} attention heads cannot share"
            )
        return None

    def build(self, context: Context) -> nn.Module:
        width = max(context.student.embedding_size, context.teacher.embedding_size)
        places = range(len(context.student.stages))
        made = (projector(context.student, stage, width, context.num_classes) for stage in places)
        return initialise(nn.ModuleList(made))

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleList) -> Terms:
        def distance(logits: Tensor) -> Tensor:
            return ofa_loss(logits, teacher.logits, batch.target, self.eps, self.temperature)

        stages = [distance(project(maps)) for project, maps in zip(modules, student.stages, strict=True)]
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "logit": self.logit_weight * distance(student.logits),
            "stage": self.stage_weight * torch.stack(stages).sum(),
        }
