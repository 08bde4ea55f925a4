"""The wide residual networks of Zagoruyko & Komodakis (BMVC 2016, arXiv:1605.07146), without dropout.

Depth 6n + 4, width k: a 3x3 stem of 16, three stages of n pre-activation blocks of 16k, 32k, 64k with
strides 1, 2, 2, then BatchNorm, ReLU, global pooling, one linear layer. Parameter names are those of the
RepDistiller and mdistiller checkpoints.

No ReLU follows a stage's last sum within the stage. As in the literature, ``stages`` are those sums and
``preact`` are the sums after the BatchNorm that follows: the next stage's first, or the final one.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.cifar.base import CifarNet, Maps, info, register
from kdbench.models.cifar.init import fan_normal


class WideBlock(nn.Module):
    """Pre-activation block: [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def branches(self, x: Tensor, active: Tensor) -> Tensor:
        """Return the sum of both branches, given the input and relu(bn1(input)), which a convolved shortcut reads."""
        y = F.relu(self.bn2(self.conv1(active)), inplace=True)
        return self.conv2(y) + (x if self.convShortcut is None else self.convShortcut(active))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to the sum of the previous one."""
        return self.branches(x, F.relu(self.bn1(x), inplace=True))


class WideStage(nn.Module):
    """Stage of ``blocks`` blocks, the first of which has the stride."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = (WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(WideBlock(inputs, outputs, stride), *rest)

    @property
    def entry(self) -> WideBlock:
        """The first block."""
        return self.layer[0]  # type: ignore[return-value]

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Apply the blocks to the input ``x`` and ``active``, which is relu(entry.bn1(x))."""
        x = self.entry.branches(x, active)
        for block in self.layer[1:]:
            x = block(x)
        return x


class WideResNet(CifarNet):
    """Wide residual network of depth 6n + 4. Raises ValueError for other depths."""

    def __init__(self, depth: int, width: int, num_classes: int = 100, in_chans: int = 3) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n + 4, got {depth}")
        one, two, three = (16 * width, 32 * width, 64 * width)
        places = [info("block1", one, 1), info("block2", two, 2), info("block3", three, 4)]
        super().__init__(num_classes, three, places)
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(16, one, blocks, stride=1)
        self.block2 = WideStage(one, two, blocks, stride=2)
        self.block3 = WideStage(two, three, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(three)
        self.fc = nn.Linear(three, num_classes)
        fan_normal(self)
        self.init_classifier(self.fc)

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        x = self.conv1(x)
        active = F.relu(self.block1.entry.bn1(x), inplace=True)
        stages, before = [], []
        for stage, norm in zip((self.block1, self.block2, self.block3), self.stage_norms(), strict=True):
            x = stage(x, active)
            stages.append(x)
            before.append(norm(x))  # once: in training mode it updates the running statistics
            active = F.relu(before[-1])
        return tuple(stages), tuple(before)

    def final_map(self, stages: Maps, preacts: Maps) -> Tensor:
        return F.relu(preacts[-1])

    def stage_norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.block2.entry.bn1, self.block3.entry.bn1, self.bn1

    def init_classifier(self, layer: nn.Linear) -> None:
        nn.init.zeros_(layer.bias)


for _depth, _width in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 10)):
    register(f"wrn_{_depth}_{_width}", WideResNet, "fc", depth=_depth, width=_width)
