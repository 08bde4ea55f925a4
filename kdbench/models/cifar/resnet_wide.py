"""ResNet-18, 34 and 50 of He et al. (CVPR 2016, arXiv:1512.03385, table 1) with a stem for small images.

The stem is a 3x3 convolution of stride 1 without max-pooling; four stages of widths 64 to 512 (x 4 in
bottlenecks) with strides 1, 2, 2, 2; global pooling. Parameter names are those of the RepDistiller and
mdistiller checkpoints.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register, run_stages
from kdbench.models.cifar.init import kaiming

WIDTHS = (64, 128, 256, 512)


class Basic(nn.Module):
    """Two 3x3 convolutions with a shortcut: [B, inputs, H, W] -> [B, width, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def preact(self, x: Tensor) -> Tensor:
        """Return the sum before the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(y)) + self.shortcut(x)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 with the stride, 1x1: [B, inputs, H, W] -> [B, 4 * width, H/stride, W/stride]."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def preact(self, x: Tensor) -> Tensor:
        """Return the sum before the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return self.bn3(self.conv3(y)) + self.shortcut(x)


class WideStemResNet(CifarNet):
    """ResNet of four stages. ``block`` is Basic or Bottleneck, ``counts`` the blocks per stage."""

    classifier_name = "linear"

    def __init__(
        self, block: Any, counts: tuple[int, ...], num_classes: int = 100, in_chans: int = 3
    ) -> None:
        outputs = [width * block.expansion for width in WIDTHS]
        places = [info(f"layer{i + 1}", channels, 2**i) for i, channels in enumerate(outputs)]
        super().__init__(num_classes, outputs[-1], places)
        self.conv1 = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, WIDTHS[0], counts[0], stride=1)
        self.layer2 = _stage(block, outputs[0], WIDTHS[1], counts[1], stride=2)
        self.layer3 = _stage(block, outputs[1], WIDTHS[2], counts[2], stride=2)
        self.layer4 = _stage(block, outputs[2], WIDTHS[3], counts[3], stride=2)
        self.linear = nn.Linear(outputs[-1], num_classes)
        kaiming(self)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return run_stages((self.layer1, self.layer2, self.layer3, self.layer4), x)

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        last: list[Any] = [self.layer1[-1], self.layer2[-1], self.layer3[-1], self.layer4[-1]]
        return tuple(block.bn3 if isinstance(block, Bottleneck) else block.bn2 for block in last)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Build a 1x1 convolution with BatchNorm where the shape changes, else nothing."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stage(block: Any, inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, width, stride), *rest)


register("resnet18", WideStemResNet, "linear", stages=4, block=Basic, counts=(2, 2, 2, 2))
register("resnet34", WideStemResNet, "linear", stages=4, block=Basic, counts=(3, 4, 6, 3))
register("resnet50", WideStemResNet, "linear", stages=4, block=Bottleneck, counts=(3, 4, 6, 3))
