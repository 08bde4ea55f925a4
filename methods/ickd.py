"""Inter-channel correlation: the student's channels are as alike as the teacher's."""

from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, unit


def channel_correlation(maps: Tensor) -> Tensor:
    """Inner products of each sample's channels, every row at unit length: [B, D, H, W] -> [B, D, D].

    A channel that is zero everywhere has a row of zeros.

    >>> channel_correlation(torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]]))
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    channels = maps.flatten(2)
    return unit(channels @ channels.transpose(1, 2), dim=2)


def correlation_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over one row of the squared difference of the correlations, mean over rows and samples.

    The maps have the same channels; their heights and widths may differ.

    >>> twins = torch.ones(1, 2, 1, 2)
    >>> correlation_gap(twins, twins), correlation_gap(twins, torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]]))
    (tensor(0.), tensor(0.5858))
    """
    gap = channel_correlation(student) - channel_correlation(teacher)
    return gap.square().sum(dim=2).mean()


@register
class ICKD(PlusKD):
    """Inter-channel correlation: make the student's channels as alike as the teacher's.

    Equation: L = ce_weight CE + kd_weight T^2 KL + ickd_weight / (B D) sum_i ||N(G(R(F^s_i))) - N(G(F^t_i))||^2,
    G = F F^T the inner products of the D channels, N = every row at unit length, R = conv1x1 to the teacher's D
    channels and BatchNorm, F the last map.

    Deviations: none in the image-level form, ICKD-C. torchdistill's port divides by B once more, so that its
    weights are other ones. The grid-level form for segmentation is left out.
    """

    paper = Paper(
        title="Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
        authors=(
            "Li Liu",
            "Qingle Huang",
            "Sihao Lin",
            "Hongwei Xie",
            "Bing Wang",
            "Xiaojun Chang",
            "Xiaodan Liang",
        ),
        venue="ICCV",
        year=2021,
        arxiv="2202.03680",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "kd_temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.1, 10),
        "ickd_weight": log_range(0.25, 25),
    }
    separable = True

    needs: ClassVar[Needs] = Needs(features=True)
    coupled: ClassVar[bool] = True  # BatchNorm in the embedding
    zero_at_match: ClassVar = ("kd",)
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "ickd_weight": "ickd"}
    positive: ClassVar = ("kd_temperature",)

    # the release, CIFAR-100: ICKD+KL; its plain ICKD has kd_weight=0
    ickd_weight: float = 2.5
    kd_weight: float = 1.0

    def build(self, context: Context) -> nn.Sequential:
        channels = context.teacher.feature_channels
        return nn.Sequential(conv1x1(context.student.feature_channels, channels), nn.BatchNorm2d(channels))

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Sequential) -> Terms:
        gap = correlation_gap(modules(student.features), teacher.features)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "ickd": self.ickd_weight * gap,
        }
