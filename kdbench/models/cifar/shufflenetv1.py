"""ShuffleNet of 3 groups (Zhang et al., CVPR 2018, arXiv:1707.01083) for 32 px, as in the KD literature.

A 1x1 stem of 24 channels without stride or pooling; three stages of 4, 8, 4 blocks and 240, 480, 960
channels, each halving the resolution; global pooling. Parameter names are those of the RepDistiller and
mdistiller checkpoints. As there, and unlike in the paper, a ReLU follows the depth-wise convolution, and the
bottleneck of a stage's first block is a quarter of the channels that its convolutions add, not of the stage's width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register, run_stages

STEM, WIDTHS, COUNTS, GROUPS = 24, (240, 480, 960), (4, 8, 4), 3


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups: [B, groups * C, H, W] -> the same shape."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class ShuffleBlock(nn.Module):
    """ShuffleNet block: [B, inputs, H, W] -> [B, outputs, H/stride, W/stride].

    With stride 2 the pooled input is concatenated, so the convolutions add ``outputs - inputs`` channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        convolved = outputs - inputs if stride == 2 else outputs
        middle = convolved // 4
        self.groups = 1 if inputs == STEM else GROUPS  # the 24 channels of the stem are not split
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, convolved, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(convolved)

    def preact(self, x: Tensor) -> Tensor:
        """Return the sum, or the concatenation with the pooled input, before the block's last ReLU."""
        y = shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.groups)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if self.stride == 2 else y + x


class ShuffleNetV1(CifarNet):
    """ShuffleNet of 3 groups, initialised as torch does, as in the literature."""

    classifier_name = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        places = [info(f"layer{i + 1}", width, 2 ** (i + 1)) for i, width in enumerate(WIDTHS)]
        super().__init__(num_classes, WIDTHS[-1], places)
        self.conv1 = nn.Conv2d(in_chans, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage(STEM, WIDTHS[0], COUNTS[0])
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], COUNTS[1])
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], COUNTS[2])
        self.linear = nn.Linear(WIDTHS[-1], num_classes)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return run_stages((self.layer1, self.layer2, self.layer3), x)

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        last: list[Any] = [self.layer1[-1], self.layer2[-1], self.layer3[-1]]
        return tuple(block.bn3 for block in last)


def _stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    rest = (ShuffleBlock(outputs, outputs, 1) for _ in range(count - 1))
    return nn.Sequential(ShuffleBlock(inputs, outputs, 2), *rest)


register("shufflenetv1", ShuffleNetV1, "linear")
