"""The CIFAR ResNets of He et al. (CVPR 2016, arXiv:1512.03385, section 4.2), as the KD literature builds them.

Depth 6n + 2: a 3x3 stem, three stages of n basic blocks with strides 1, 2, 2, ReLU after the sum. Shortcuts
that change the shape are a 1x1 convolution with BatchNorm (option B). The ``x4`` nets have widths 32, 64,
128, 256. Parameter names are those of the RepDistiller and mdistiller checkpoints. Pooling is global, so any
image size works.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, check_widths, info, register, run_stages
from kdbench.models.cifar.init import kaiming

THIN = (16, 16, 32, 64)  # stem and the three stages
X4 = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def preact(self, x: Tensor) -> Tensor:
        """Return the sum before the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))


class ResNet(CifarNet):
    """ResNet of depth 6n + 2. ``widths`` are the channels of stem and stages. Raises ValueError for other depths."""

    def __init__(
        self, depth: int, num_classes: int = 100, in_chans: int = 3, widths: Sequence[int] = THIN
    ) -> None:
        stem, *channels = check_widths(widths, 4, "stem, stage 1, stage 2, stage 3")
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 2, got {depth}")
        places = [info(f"layer{i + 1}", c, 2**i) for i, c in enumerate(channels)]
        super().__init__(num_classes, channels[-1], places)
        self.conv1 = nn.Conv2d(in_chans, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, channels[0], blocks, stride=1)
        self.layer2 = _stage(channels[0], channels[1], blocks, stride=2)
        self.layer3 = _stage(channels[1], channels[2], blocks, stride=2)
        self.fc = nn.Linear(channels[2], num_classes)
        kaiming(self)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return run_stages((self.layer1, self.layer2, self.layer3), x)

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        last: list[Any] = [self.layer1[-1], self.layer2[-1], self.layer3[-1]]
        return tuple(block.bn2 for block in last)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", ResNet, "fc", depth=_depth)
for _depth in (8, 32):
    register(f"resnet{_depth}x4", ResNet, "fc", depth=_depth, widths=X4)
