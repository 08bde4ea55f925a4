"""The literature's networks: parameters, multiply-accumulates, stage shapes, names and first weights.

Counts at 100 classes and 32 px. Those in TABLE were counted on the published definitions (RepDistiller,
mdistiller); the multiply-accumulates are derived again below, layer by layer.
"""

import math

import pytest
import torch
from torch import nn

from kdbench import models
from kdbench.models.cifar.base import ENTRIES

RESNET = [(16, 32), (32, 16), (64, 8)]
X4 = [(64, 32), (128, 16), (256, 8)]
VGG = [(128, 16), (256, 8), (512, 4), (512, 4)]
WIDE = [(64, 32), (128, 16), (256, 8), (512, 4)]

# name -> parameters, known millions of multiply-accumulates (or None), (channels, size) of each stage
TABLE = {
    "resnet8": (83_892, 12.5, RESNET),
    "resnet14": (181_108, 26.7, RESNET),
    "resnet20": (278_324, 40.8, RESNET),
    "resnet32": (472_756, 69.1, RESNET),
    "resnet44": (667_188, 97.4, RESNET),
    "resnet56": (861_620, 125.8, RESNET),
    "resnet110": (1_736_564, 253.2, RESNET),
    "resnet8x4": (1_233_540, 177.1, X4),
    "resnet32x4": (7_433_860, 1083.0, X4),
    "wrn_16_1": (180_916, None, [(16, 32), (32, 16), (64, 8)]),
    "wrn_16_2": (703_284, 101.1, [(32, 32), (64, 16), (128, 8)]),
    "wrn_40_1": (569_780, 83.3, [(16, 32), (32, 16), (64, 8)]),
    "wrn_40_2": (2_255_156, 327.6, [(32, 32), (64, 16), (128, 8)]),
    "wrn_28_10": (36_536_884, None, [(160, 32), (320, 16), (640, 8)]),
    "vgg8": (3_965_028, 96.2, VGG),
    "vgg11": (9_277_284, None, VGG),
    "vgg13": (9_462_180, 284.9, VGG),
    "vgg16": (14_774_436, None, VGG),
    "vgg19": (20_086_692, None, VGG),
    "resnet18": (11_220_132, None, WIDE),
    "resnet34": (21_328_292, None, WIDE),
    "resnet50": (23_705_252, 1298.0, [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
    "mobilenetv2": (812_836, 6.5, [(12, 16), (16, 8), (48, 4), (160, 2)]),
    "mobilenetv2_stride1": (812_836, None, [(12, 32), (16, 16), (48, 8), (160, 4)]),
    "shufflenetv1": (949_258, 38.7, [(240, 16), (480, 8), (960, 4)]),
    "shufflenetv2": (1_355_528, 44.5, [(116, 16), (232, 8), (464, 4)]),
}


def conv(size: int, kernel: int, inputs: int, outputs: int, groups: int = 1) -> int:
    """Multiply-accumulates of a convolution with ``size`` x ``size`` results."""
    return size * size * kernel * kernel * inputs * outputs // groups


def resnet_macs(depth: int, widths: list[int]) -> int:
    total, inputs = conv(32, 3, 3, widths[0]), widths[0]
    for size, width in zip((32, 16, 8), widths[1:], strict=True):
        total += conv(size, 3, inputs, width) + ((depth - 2) // 3 - 1) * conv(size, 3, width, width)
        total += conv(size, 1, inputs, width) if inputs != width else 0
        inputs = width
    return total + inputs * 100


def wrn_macs(depth: int, width: int) -> int:
    return resnet_macs(depth - 2, [16, 16 * width, 32 * width, 64 * width])


def vgg_macs(*counts: int) -> int:
    total, inputs = 512 * 100, 3
    for size, width, count in zip((32, 16, 8, 4, 4), (64, 128, 256, 512, 512), counts, strict=True):
        total += conv(size, 3, inputs, width) + (count - 1) * conv(size, 3, width, width)
        inputs = width
    return total


def wide_macs(*counts: int, bottleneck: bool = False) -> int:
    total, inputs = conv(32, 3, 3, 64), 64
    for stage, count in enumerate(counts):
        size, width = 32 >> stage, 64 << stage
        outputs, before = (4 * width if bottleneck else width), (size if stage == 0 else 2 * size)
        for block in range(count):
            if bottleneck:  # the first 1x1 of a stage still works at the resolution before it
                total += conv(before if block == 0 else size, 1, inputs, width)
                total += conv(size, 3, width, width) + conv(size, 1, width, outputs)
            else:
                total += conv(size, 3, inputs, width) + conv(size, 3, width, width)
            total += conv(size, 1, inputs, outputs) if inputs != outputs else 0
            inputs = outputs
    return total + inputs * 100


def mobilenetv2_macs(stem: int) -> int:
    """``stem``: the size of the stem's map."""
    total, size, inputs = conv(stem, 3, 3, 16), stem, 16
    rows = [(1, 8, 1), (6, 12, 1), (6, 12, 1), (6, 16, 2), (6, 16, 1), (6, 16, 1)]
    rows += [(6, 32, 2), *[(6, 32, 1)] * 3, *[(6, 48, 1)] * 3, (6, 80, 2), *[(6, 80, 1)] * 2, (6, 160, 1)]
    for expansion, outputs, stride in rows:
        middle, after = expansion * inputs, size // stride
        total += conv(size, 1, inputs, middle) + conv(after, 3, middle, middle, middle)
        total += conv(after, 1, middle, outputs)
        size, inputs = after, outputs
    return total + conv(size, 1, inputs, 1280) + 1280 * 100


def shufflenetv1_macs() -> int:
    total, size, inputs = conv(32, 1, 3, 24), 32, 24
    for outputs, count in ((240, 4), (480, 8), (960, 4)):
        for block in range(count):
            convolved = outputs - inputs if block == 0 else outputs
            after, middle = (size // 2 if block == 0 else size), convolved // 4
            total += conv(size, 1, inputs, middle, 1 if inputs == 24 else 3)
            total += conv(after, 3, middle, middle, middle) + conv(after, 1, middle, convolved, 3)
            size, inputs = after, outputs
    return total + inputs * 100


def shufflenetv2_macs() -> int:
    total, size, inputs = conv(32, 1, 3, 24), 32, 24
    for outputs, count in ((116, 3), (232, 7), (464, 3)):
        half, after = outputs // 2, size // 2
        total += conv(after, 3, inputs, inputs, inputs) + conv(after, 1, inputs, half)
        total += conv(size, 1, inputs, half) + conv(after, 3, half, half, half) + conv(after, 1, half, half)
        total += count * (2 * conv(after, 1, half, half) + conv(after, 3, half, half, half))
        size, inputs = after, outputs
    return total + conv(size, 1, inputs, 1024) + 1024 * 100


DERIVED = {
    **{f"resnet{d}": resnet_macs(d, [16, 16, 32, 64]) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x4": resnet_macs(d, [32, 64, 128, 256]) for d in (8, 32)},
    **{f"wrn_{d}_{w}": wrn_macs(d, w) for d, w in ((16, 1), (16, 2), (40, 1), (40, 2), (28, 10))},
    "vgg8": vgg_macs(1, 1, 1, 1, 1),
    "vgg11": vgg_macs(1, 1, 2, 2, 2),
    "vgg13": vgg_macs(2, 2, 2, 2, 2),
    "vgg16": vgg_macs(2, 2, 3, 3, 3),
    "vgg19": vgg_macs(2, 2, 4, 4, 4),
    "resnet18": wide_macs(2, 2, 2, 2),
    "resnet34": wide_macs(3, 4, 6, 3),
    "resnet50": wide_macs(3, 4, 6, 3, bottleneck=True),
    "mobilenetv2": mobilenetv2_macs(16),
    "mobilenetv2_stride1": mobilenetv2_macs(32),
    "shufflenetv1": shufflenetv1_macs(),
    "shufflenetv2": shufflenetv2_macs(),
}


def test_the_table_covers_the_zoo() -> None:
    assert set(TABLE) == set(DERIVED) == set(ENTRIES)


@pytest.mark.parametrize("name", TABLE)
def test_parameters_macs_and_stages(name: str) -> None:
    parameters, published, shapes = TABLE[name]
    net = models.create(name, 100).eval()
    assert models.count_parameters(net) == parameters
    assert models.macs(net, 32) == DERIVED[name]
    assert published is None or abs(DERIVED[name] / 1e6 - published) <= (0.5 if published > 1000 else 0.05)
    with torch.no_grad():
        stages, preacts = net.forward_stages(torch.zeros(1, 3, 32, 32))
    assert [(stage.shape[1], stage.shape[2]) for stage in stages] == shapes
    assert [stage.shape for stage in stages] == [stage.shape for stage in preacts]


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize(
    "name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"]
)
def test_other_image_sizes(name: str, size: int) -> None:
    facts = models.Network(models.create(name, 10), (0.5,) * 3, (0.25,) * 3).facts(size)
    scale = size / 32
    sizes = [max(1, int(s * scale)) for _, s in TABLE[name][2]]
    if name == "vgg8" and size == 64:
        sizes[-1] //= 2  # from 64 px on the fourth block is pooled too
    assert [stage.size[0] for stage in facts.stages] == sizes


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def keys(convs: str = "", norms: str = "", biased: str = "") -> set[str]:
    """State-dict names of space-separated convolutions, BatchNorms and layers with a bias."""
    return (
        {f"{name}.weight" for name in convs.split()}
        | {f"{name}.{part}" for name in norms.split() for part in BN}
        | {f"{name}.{part}" for name in biased.split() for part in ("weight", "bias")}
    )


def under(prefix: str, names: set[str]) -> set[str]:
    return {f"{prefix}.{name}" for name in names}


def test_names_of_resnet8() -> None:
    block = keys("conv1 conv2", "bn1 bn2")
    down = keys("downsample.0", "downsample.1")
    expected = keys("conv1", "bn1", "fc") | under("layer1.0", block)
    expected |= under("layer2.0", block | down) | under("layer3.0", block | down)
    assert set(models.create("resnet8", 100).state_dict()) == expected
    wide = set(models.create("resnet8x4", 100).state_dict())
    assert wide == expected | under("layer1.0", down)


def test_names_of_wrn_16() -> None:
    block = keys("conv1 conv2", "bn1 bn2")
    for width, changed in ((1, (2, 3)), (2, (1, 2, 3))):
        expected = keys("conv1", "bn1", "fc")
        for stage in (1, 2, 3):
            expected |= under(f"block{stage}.layer.0", block) | under(f"block{stage}.layer.1", block)
        expected |= {f"block{stage}.layer.0.convShortcut.weight" for stage in changed}
        assert set(models.create(f"wrn_16_{width}", 100).state_dict()) == expected


def test_names_of_vgg8_and_vgg13() -> None:
    for name, places in (("vgg8", (0,)), ("vgg13", (0, 3))):
        expected = keys(biased="classifier")
        for block in range(5):
            for place in places:
                expected |= keys(biased=f"block{block}.{place}", norms=f"block{block}.{place + 1}")
        assert set(models.create(name, 100).state_dict()) == expected


def test_names_of_resnet18_and_resnet50() -> None:
    for name, counts, last in (("resnet18", (2, 2, 2, 2), 2), ("resnet50", (3, 4, 6, 3), 3)):
        inner = " ".join(f"conv{i}" for i in range(1, last + 1))
        expected = keys("conv1", "bn1", "linear")
        for stage, count in enumerate(counts, 1):
            for block in range(count):
                expected |= under(f"layer{stage}.{block}", keys(inner, inner.replace("conv", "bn")))
            if stage > 1 or last == 3:
                expected |= under(f"layer{stage}.0", keys("shortcut.0", "shortcut.1"))
        assert set(models.create(name, 100).state_dict()) == expected


def test_names_of_mobilenetv2() -> None:
    expected = keys("conv1.0 conv2.0", "conv1.1 conv2.1", "classifier.0")
    for group, count in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(count):
            expected |= under(f"blocks.{group}.{block}", keys("conv.0 conv.3 conv.6", "conv.1 conv.4 conv.7"))
    assert set(models.create("mobilenetv2", 100).state_dict()) == expected


def test_names_of_the_shufflenets() -> None:
    block = keys("conv1 conv2 conv3", "bn1 bn2 bn3")
    expected = keys("conv1", "bn1", "linear")
    for stage, count in enumerate((4, 8, 4), 1):
        expected |= {name for i in range(count) for name in under(f"layer{stage}.{i}", block)}
    assert set(models.create("shufflenetv1", 100).state_dict()) == expected

    expected = keys("conv1 conv2", "bn1 bn2", "linear")
    for stage, count in enumerate((3, 7, 3), 1):
        expected |= under(f"layer{stage}.0", block | keys("conv4 conv5", "bn4 bn5"))
        expected |= {name for i in range(count) for name in under(f"layer{stage}.{i + 1}", block)}
    assert set(models.create("shufflenetv2", 100).state_dict()) == expected


def spread(weight: torch.Tensor) -> float:
    return float(weight.detach().std())


@pytest.mark.parametrize(
    ("name", "layer", "deviation"),
    [
        ("resnet32x4", "layer3.1.conv1", math.sqrt(2 / (9 * 256))),  # fan-out
        ("resnet50", "layer4.0.conv3", math.sqrt(2 / 2048)),
        ("wrn_16_2", "block3.layer.1.conv2", math.sqrt(2 / (9 * 128))),
        ("vgg8", "block4.0", math.sqrt(2 / (9 * 512))),
        ("mobilenetv2", "conv2.0", math.sqrt(2 / 1280)),
        ("mobilenetv2", "blocks.5.1.conv.3", math.sqrt(2 / (9 * 480))),  # depth-wise: groups do not divide
        ("mobilenetv2", "classifier.0", 0.01),
        ("vgg8", "classifier", 0.01),
        ("wrn_16_2", "fc", 1 / math.sqrt(3 * 128)),  # torch's default: uniform in +-1 / sqrt(inputs)
        ("shufflenetv1", "linear", 1 / math.sqrt(3 * 960)),
        ("shufflenetv2", "conv2", 1 / math.sqrt(3 * 464)),
    ],
)
def test_first_weights(name: str, layer: str, deviation: float) -> None:
    torch.manual_seed(0)
    net = models.create(name, 100)
    assert spread(net.get_submodule(layer).weight) == pytest.approx(deviation, rel=0.06)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())


@pytest.mark.parametrize("name", ["wrn_16_2", "vgg8", "mobilenetv2"])
def test_biases_start_at_zero_and_a_new_head_like_the_first(name: str) -> None:
    torch.manual_seed(0)
    net = models.create(name, 100)
    first = spread(net.get_classifier().weight)
    net.reset_classifier(90)
    assert spread(net.get_classifier().weight) == pytest.approx(first, rel=0.1)
    assert bool((net.get_classifier().bias == 0).all())
    assert all(
        bool((m.bias == 0).all()) for m in net.modules() if isinstance(m, nn.Conv2d) and m.bias is not None
    )
