"""MobileNetV2 of half width (Sandler et al., CVPR 2018, arXiv:1801.04381) for 32 px, as in the KD literature.

Inverted residuals of expansion 6 (the first 1), all widths halved but the last 1x1 convolution's 1280,
ReLU for ReLU6. Parameter names are those of the RepDistiller and mdistiller checkpoints.

Two networks with the same parameters have this name. The tables' ``mobilenetv2`` (RepDistiller, mdistiller;
64.6 % on CIFAR-100) has a stem of stride 2 and ends at 2x2; ``mobilenetv2_stride1`` (HSAKD) keeps 32x32
in the stem, so each map has four times the pixels. Stages end in a linear bottleneck: ``preact`` equals
``stages``.
"""

from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register
from kdbench.models.cifar.init import fan_normal, small_linear

STEM, LAST = 16, 1280
# expansion, channels, blocks, stride; table 2 of the paper with half the channels and the 32 px strides
GROUPS = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
STAGE_ENDS = (1, 2, 4, 6)  # the last group at each resolution


class InvertedResidual(nn.Module):
    """Convolutions 1x1 up, 3x3 depth-wise and 1x1 down, the last without ReLU.

    [B, inputs, H, W] -> [B, outputs, H/stride, W/stride].
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block, with its shortcut where the shape is unchanged."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(CifarNet):
    """MobileNetV2 of half width. ``stem_stride`` is 2 in the literature's tables, 1 in HSAKD."""

    classifier_name = "classifier.0"

    def __init__(self, stem_stride: int = 2, num_classes: int = 100, in_chans: int = 3) -> None:
        reductions = [stem_stride * factor for factor in (1, 2, 4, 8)]
        places = [
            info(f"blocks.{i}", GROUPS[i][1], reduction)
            for i, reduction in zip(STAGE_ENDS, reductions, strict=True)
        ]
        super().__init__(num_classes, LAST, places)
        self.conv1 = _conv_bn(in_chans, STEM, 3, stem_stride)
        self.blocks = nn.ModuleList()
        inputs = STEM
        for expansion, outputs, count, stride in GROUPS:
            first = InvertedResidual(inputs, outputs, stride, expansion)
            rest = (InvertedResidual(outputs, outputs, 1, expansion) for _ in range(count - 1))
            self.blocks.append(nn.Sequential(first, *rest))
            inputs = outputs
        self.conv2 = _conv_bn(inputs, LAST, 1, 1)
        self.classifier = nn.Sequential(nn.Linear(LAST, num_classes))
        fan_normal(self)
        self.init_classifier(self.classifier[0])  # type: ignore[arg-type]

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = self.conv1(x)
        stages = []
        for i, group in enumerate(self.blocks):
            x = group(x)
            if i in STAGE_ENDS:
                stages.append(x)
        return tuple(stages), tuple(stages)

    def final_map(self, stages: Maps, preacts: Maps) -> Tensor:
        return self.conv2(stages[-1])

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(self.blocks[i][-1].conv[-1] for i in STAGE_ENDS)  # type: ignore

    def init_classifier(self, layer: nn.Linear) -> None:
        small_linear(layer)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


register("mobilenetv2", MobileNetV2, "classifier.0", stages=4, stem_stride=2)
register("mobilenetv2_stride1", MobileNetV2, "classifier.0", stages=4, stem_stride=1)
