"""The VGG nets of Simonyan & Zisserman (ICLR 2015, arXiv:1409.1556), with BatchNorm and one linear layer.

Five blocks of 3x3 convolutions (with bias) of 64, 128, 256, 512, 512 channels, 2x2 max-pooling after the
first three (after the fourth too from 64 px on), global average pooling. Parameter names are those of the
RepDistiller and mdistiller checkpoints. As in the literature the first block is the stem: the stages are the
blocks 1 to 4, of which the last two have the same resolution at 32 px.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register
from kdbench.models.cifar.init import fan_normal, small_linear

WIDTHS = (64, 128, 256, 512, 512)
POOL_FOURTH_FROM = 64  # px


class VGG(CifarNet):
    """VGG of five blocks. ``counts`` are the convolutions per block."""

    classifier_name = "classifier"

    def __init__(self, counts: tuple[int, ...], num_classes: int = 100, in_chans: int = 3) -> None:
        places = [info(f"block{i}", WIDTHS[i], min(2**i, 8)) for i in range(1, 5)]
        super().__init__(num_classes, WIDTHS[-1], places)
        self.block0 = _block(in_chans, WIDTHS[0], counts[0])
        self.block1 = _block(WIDTHS[0], WIDTHS[1], counts[1])
        self.block2 = _block(WIDTHS[1], WIDTHS[2], counts[2])
        self.block3 = _block(WIDTHS[2], WIDTHS[3], counts[3])
        self.block4 = _block(WIDTHS[3], WIDTHS[4], counts[4])
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        fan_normal(self)
        self.init_classifier(self.classifier)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        pools = 4 if x.shape[-1] >= POOL_FOURTH_FROM else 3
        x = F.relu(self.block0(x), inplace=True)
        stages, before = [], []
        for i, block in enumerate((self.block1, self.block2, self.block3, self.block4)):
            if i < pools:
                x = F.max_pool2d(x, 2)
            before.append(block(x))
            x = F.relu(before[-1])
            stages.append(x)
        return tuple(stages), tuple(before)

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        blocks = (self.block1, self.block2, self.block3, self.block4)
        return tuple(block[-1] for block in blocks)  # type: ignore[misc]

    def init_classifier(self, layer: nn.Linear) -> None:
        small_linear(layer)


def _block(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """Build conv, bn, relu, ..., conv, bn: the caller applies the last ReLU."""
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


_COUNTS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
for _depth, _counts in _COUNTS.items():
    register(f"vgg{_depth}", VGG, "classifier", stages=4, counts=_counts)
