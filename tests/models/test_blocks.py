"""Each family's arithmetic, written out again from its state dict, equals the network.

All BatchNorms get random statistics and affine terms first, so that none is an identity.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import models


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network in evaluation mode with random BatchNorms, and its state dict."""
    torch.manual_seed(1)
    net = models.create(name, 10).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.3)
    return net, net.state_dict()


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x.mean((2, 3)) @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_resnet() -> None:
    net, s = build("resnet14")
    x = torch.relu(norm(s, "bn1", conv(s, "conv1", images())))
    stages, preacts = net.forward_stages(images())
    for stage in (1, 2, 3):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = torch.relu(norm(s, f"{at}.bn1", conv(s, f"{at}.conv1", x, stride)))
            y = norm(s, f"{at}.bn2", conv(s, f"{at}.conv2", y))
            if stride == 2:
                x = norm(s, f"{at}.downsample.1", conv(s, f"{at}.downsample.0", x, stride))
            before = y + x
            x = torch.relu(before)
        same(preacts[stage - 1], before)
        same(stages[stage - 1], x)
    same(net(images()), linear(s, "fc", x))


@torch.no_grad()
@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2"])
def test_wrn(name: str) -> None:
    net, s = build(name)
    x = conv(s, "conv1", images())
    stages, preacts = net.forward_stages(images())
    for stage in (1, 2, 3):
        for block in (0, 1):
            at, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            active = torch.relu(norm(s, f"{at}.bn1", x))
            y = torch.relu(norm(s, f"{at}.bn2", conv(s, f"{at}.conv1", active, stride)))
            changed = f"{at}.convShortcut.weight" in s
            x = conv(s, f"{at}.conv2", y) + (conv(s, f"{at}.convShortcut", active, stride) if changed else x)
        reader = f"block{stage + 1}.layer.0.bn1" if stage < 3 else "bn1"
        same(stages[stage - 1], x)
        same(preacts[stage - 1], norm(s, reader, x))
    same(net(images()), linear(s, "fc", torch.relu(norm(s, "bn1", x))))


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 64])
def test_vgg(size: int) -> None:
    net, s = build("vgg11")
    x = images(size)
    stages, preacts = net.forward_stages(x)
    for block, count in enumerate((1, 1, 2, 2, 2)):
        for place in range(count):
            before = norm(s, f"block{block}.{3 * place + 1}", conv(s, f"block{block}.{3 * place}", x))
            x = torch.relu(before)
        if block:
            same(preacts[block - 1], before)
            same(stages[block - 1], x)
        if block < (4 if size == 64 else 3):
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    same(net(images(size)), linear(s, "classifier", x))


@torch.no_grad()
@pytest.mark.parametrize(("name", "convs"), [("resnet18", 2), ("resnet50", 3)])
def test_wide_resnet(name: str, convs: int) -> None:
    net, s = build(name)
    stages, preacts = net.forward_stages(images())
    same(net(images()), linear(s, "linear", stages[3]))
    x = stages[0]
    count = len(net.layer2)
    for block in range(count):
        at, stride, y = f"layer2.{block}", 2 if block == 0 else 1, x
        for i in range(1, convs + 1):
            strided = i == (1 if convs == 2 else 2)  # the first 3x3
            y = norm(s, f"{at}.bn{i}", conv(s, f"{at}.conv{i}", y, stride if strided else 1))
            y = torch.relu(y) if i < convs else y
        if block == 0:
            x = norm(s, f"{at}.shortcut.1", conv(s, f"{at}.shortcut.0", x, 2))
        before = y + x
        x = torch.relu(before)
    same(preacts[1], before)
    same(stages[1], x)


@torch.no_grad()
def test_mobilenetv2() -> None:
    net, s = build("mobilenetv2")
    x = torch.relu(norm(s, "conv1.1", conv(s, "conv1.0", images(), 2)))
    stages, preacts = net.forward_stages(images())
    ends = []
    for group, (count, stride) in enumerate(((1, 1), (2, 1), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))):
        for block in range(count):
            at, wide = f"blocks.{group}.{block}.conv", s[f"blocks.{group}.{block}.conv.3.weight"].shape[0]
            y = torch.relu(norm(s, f"{at}.1", conv(s, f"{at}.0", x)))
            y = torch.relu(norm(s, f"{at}.4", conv(s, f"{at}.3", y, stride if block == 0 else 1, wide)))
            y = norm(s, f"{at}.7", conv(s, f"{at}.6", y))
            x = x + y if x.shape == y.shape else y
        ends.append(x)
    for stage, group in enumerate((1, 2, 4, 6)):
        same(stages[stage], ends[group])
        same(preacts[stage], ends[group])
    same(net(images()), linear(s, "classifier.0", torch.relu(norm(s, "conv2.1", conv(s, "conv2.0", x)))))


def interleaved(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle by index: result channel i * groups + g is channel i of group g."""
    size = x.shape[1] // groups
    return torch.stack([x[:, g * size + i] for i in range(size) for g in range(groups)], 1)


@torch.no_grad()
def test_shufflenetv1() -> None:
    net, s = build("shufflenetv1")
    x = torch.relu(norm(s, "bn1", conv(s, "conv1", images())))
    stages, preacts = net.forward_stages(images())
    for stage, count in enumerate((4, 8, 4), 1):
        for block in range(count):
            at, groups = f"layer{stage}.{block}", 1 if stage == 1 and block == 0 else 3
            y = interleaved(
                torch.relu(norm(s, f"{at}.bn1", conv(s, f"{at}.conv1", x, groups=groups))), groups
            )
            y = torch.relu(
                norm(s, f"{at}.bn2", conv(s, f"{at}.conv2", y, 2 if block == 0 else 1, y.shape[1]))
            )
            y = norm(s, f"{at}.bn3", conv(s, f"{at}.conv3", y, groups=3))
            if block == 0:
                padded = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
                before = torch.cat([y, padded.mean((-1, -2))], 1)
            else:
                before = y + x
            x = torch.relu(before)
        same(preacts[stage - 1], before)
        same(stages[stage - 1], x)
    same(net(images()), linear(s, "linear", x))


@torch.no_grad()
def test_shufflenetv2() -> None:
    net, s = build("shufflenetv2")
    x = torch.relu(norm(s, "bn1", conv(s, "conv1", images())))
    stages, _ = net.forward_stages(images())

    def unit(at: str, i: int, x: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        return norm(s, f"{at}.bn{i}", conv(s, f"{at}.conv{i}", x, stride, x.shape[1] if depthwise else 1))

    for stage, count in enumerate((3, 7, 3), 1):
        at = f"layer{stage}.0"
        left = torch.relu(unit(at, 2, unit(at, 1, x, 2, True)))
        right = torch.relu(unit(at, 5, unit(at, 4, torch.relu(unit(at, 3, x)), 2, True)))
        x = interleaved(torch.cat([left, right], 1), 2)
        for block in range(1, count + 1):
            at, half = f"layer{stage}.{block}", x.shape[1] // 2
            y = torch.relu(unit(at, 3, unit(at, 2, torch.relu(unit(at, 1, x[:, half:])), depthwise=True)))
            x = interleaved(torch.cat([x[:, :half], y], 1), 2)
        same(stages[stage - 1], x)
    same(net(images()), linear(s, "linear", torch.relu(norm(s, "bn2", conv(s, "conv2", x)))))


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet8", "vgg8", "resnet18", "shufflenetv1", "shufflenetv2"])
def test_a_stage_is_the_relu_of_its_preact(name: str) -> None:
    net, _ = build(name)
    for stage, before in zip(*net.forward_stages(images()), strict=True):
        assert torch.equal(stage, torch.relu(before))
        assert bool((before < 0).any())
