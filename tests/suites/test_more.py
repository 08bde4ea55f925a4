"""The suites beside the protocol: two views for all, and timm's networks at 32 px."""

import dataclasses

import pytest
import torch

from kdbench import models, registry, suites
from kdbench.errors import KdbenchError
from kdbench.models.wrapper import Network
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection

# --- cifar100-twoview ---


@pytest.fixture(scope="module")
def twoview():
    registry.load()
    return suites.load("cifar100-twoview")


def test_all_methods_train_on_the_same_two_views_for_as_long(twoview):
    """480 epochs, lr 0.025, decay at 150, 180 and 210; light students at 0.01; 960 epochs for resnet32x4 -> V2."""
    recipe = twoview.recipe
    assert (recipe.epochs, recipe.reference_epochs, recipe.lr) == (480, 480, 0.025)
    assert (recipe.milestones, recipe.decay, recipe.schedule) == ((150, 180, 210), 0.1, "step")
    assert set(twoview.methods) == {"ce", "kd", "dkd", "mlkd", "bickd"}
    for method in twoview.methods:
        assert recipe.views(registry.get(method).needs.views) == ("weak", "strong")
    for pair in twoview.pairs:
        light = pair.student.startswith(("mobilenet", "shufflenet"))
        assert pair.recipe.get("lr") == (0.01 if light else None)
        long = (pair.recipe.get("epochs"), pair.recipe.get("reference_epochs"))
        assert long == ((960, 960) if pair.student == "shufflenetv2" else (None, None))


def test_it_has_the_ten_pairs_of_cifar100_with_published_numbers(twoview):
    pairs = [str(pair) for pair in twoview.pairs]
    assert len(pairs) == 10
    assert set(pairs) < {str(pair) for pair in suites.load("cifar100").pairs}


def test_its_teachers_are_those_of_cifar100(twoview):
    """One view, the CRD protocol: the same training run, so one that is there already is found."""
    ids = []
    for suite in (twoview, suites.load("cifar100")):
        recipe = suites.replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
        pair = suites.Pair("resnet56", "resnet56")
        selection = Selection(dataclasses.replace(suite, recipe=recipe), ["ce"], [pair], [0])
        (cell,) = plan_cells(selection, "s", {"resnet56": None})
        ids.append(cell.id)
    assert ids[0] == ids[1]


# --- cifar100-timm ---

# parameters; MACs and side of the last map at 32 px, then at 64 px
NETWORKS = {
    "convnext_pico_p1": (8_581_092, 443.3, 4, 1773.1, 8),
    "convnext_atto_p1": (3_404_820, 176.8, 4, 707.1, 8),
    "efficientnet_b0_os8": (4_135_648, 55.5, 4, 219.7, 8),
    "mobilenetv3_large": (4_330_132, 7.2, 1, 20.2, 2),
    "vit_tiny_d6": (2_710_948, 182.9, 8, 836.7, 16),
    "vit_tiny_d12": (5_380_132, 365.1, 8, 1671.0, 16),
}


@pytest.fixture(scope="module")
def timms():
    return suites.load("cifar100-timm")


def test_its_pairs_cross_the_families(timms):
    """CNN to CNN, CNN to ViT, ViT to CNN; ViT, ConvNeXt, MobileNetV3 and EfficientNet take part."""
    names = {name for pair in timms.pairs for name in (pair.teacher, pair.student)}
    assert names == NETWORKS.keys() | {"resnet32x4", "resnet8x4"}  # these two stand in test_models_zoo.py
    kinds = {tuple("vit" if "vit" in n else "cnn" for n in (p.teacher, p.student)) for p in timms.pairs}
    assert kinds == {("cnn", "cnn"), ("cnn", "vit"), ("vit", "cnn")}
    text = " ".join(NETWORKS)
    assert all(family in text for family in ("vit", "convnext", "mobilenetv3", "efficientnet"))


@pytest.mark.parametrize("name", NETWORKS)
def test_its_networks_take_32_and_64_pixels(timms, name):
    spec, (parameters, *places) = timms.model(name), NETWORKS[name]
    for size, macs, side in ((32, *places[:2]), (64, *places[2:])):
        args = {**spec.args, **({"img_size": size} if "img_size" in spec.args else {})}
        model = models.create(spec.arch, 100, **args)
        facts = Network(model, timms.dataset.mean, timms.dataset.std).facts(size)
        assert facts.feature_size == (side, side)
        assert len(facts.stages) >= 3
        assert models.macs(model, size) / 1e6 == pytest.approx(macs, abs=0.05)
        positions = (
            (size // 4) ** 2 - 64 if "img_size" in args else 0
        )  # of 192 numbers each, beyond those at 32 px
        assert models.count_parameters(model) == parameters + 192 * positions


def test_only_mobilenetv3_keeps_timms_strides(timms):
    """Its entry point passes no stem stride and no output stride on."""
    for key in ("stem_stride", "output_stride"):
        with pytest.raises(KdbenchError, match=f"cannot be built with {key}=.*{key}"):
            models.create("mobilenetv3_large_100", 100, **{key: 8})
    with torch.device("meta"):
        plain = models.create("efficientnet_b0", 100)
    assert sum(p.numel() for p in plain.parameters()) == NETWORKS["efficientnet_b0_os8"][0]
