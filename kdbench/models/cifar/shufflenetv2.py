"""ShuffleNetV2 of width 1 (Ma et al., ECCV 2018, arXiv:1807.11164) for 32 px, as in the KD literature.

A 1x1 stem of 24 channels without stride or pooling; three stages of 116, 232, 464 channels, each of one
halving block and 3, 7, 3 basic ones; a 1x1 convolution to 1024; global pooling. Parameter names are those
of the RepDistiller and mdistiller checkpoints. Unlike in mdistiller ``preact`` is shuffled as ``stages`` are,
so that relu(preact) == stages channel by channel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register, run_stages
from kdbench.models.cifar.shufflenetv1 import shuffle

STEM, WIDTHS, LAST, COUNTS = 24, (116, 232, 464), 1024, (3, 7, 3)


class BasicUnit(nn.Module):
    """Convolve one half of the channels and pass the other: [B, channels, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def preact(self, x: Tensor) -> Tensor:
        """Return the map before the last ReLU, which leaves the passed half as it is: that is never negative."""
        passed, y = x.chunk(2, 1)
        y = F.relu(self.bn1(self.conv1(y)), inplace=True)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return shuffle(torch.cat([passed, y], 1), 2)


class DownUnit(nn.Module):
    """Convolve all channels in two branches with stride 2: [B, inputs, H, W] -> [B, outputs, H/2, W/2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 2, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def preact(self, x: Tensor) -> Tensor:
        """Return both branches before their last ReLU."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV2(CifarNet):
    """ShuffleNetV2 of width 1, initialised as torch does, as in the literature."""

    classifier_name = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3) -> None:
        places = [info(f"layer{i + 1}", width, 2 ** (i + 1)) for i, width in enumerate(WIDTHS)]
        super().__init__(num_classes, LAST, places)
        self.conv1 = nn.Conv2d(in_chans, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage(STEM, WIDTHS[0], COUNTS[0])
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], COUNTS[1])
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], COUNTS[2])
        self.conv2 = nn.Conv2d(WIDTHS[2], LAST, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(LAST)
        self.linear = nn.Linear(LAST, num_classes)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return run_stages((self.layer1, self.layer2, self.layer3), x)

    def final_map(self, stages: Maps, preacts: Maps) -> Tensor:
        return F.relu(self.bn2(self.conv2(stages[-1])))

    def stage_norms(self) -> tuple[None, ...]:
        """Return None per stage: a stage's last BatchNorm spans half of its channels."""
        return None, None, None


def _stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inputs, outputs), *(BasicUnit(outputs) for _ in range(count)))


register("shufflenetv2", ShuffleNetV2, "linear")
