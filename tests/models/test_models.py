"""Names, arguments, costs and timm's interface of the models."""

import copy

import pytest
import timm
import torch
from torch import nn

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models.cifar.base import ENTRIES, register

SMALL = ["resnet8", "wrn_16_1", "vgg8", "resnet18", "mobilenetv2", "shufflenetv1", "shufflenetv2"]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "vgg13", "vgg19"])
def test_timm_keeps_its_own_networks(name: str) -> None:
    assert timm.model_entrypoint(name).__module__.startswith("timm.")


def test_short_name_is_ours_and_the_prefix_is_timms() -> None:
    ours, theirs = models.create("resnet18", 10), models.create("timm/resnet18", 10)
    assert ours.conv1.stride == (1, 1)
    assert theirs.conv1.stride == (2, 2)
    assert ours.pretrained_cfg["architecture"] == "resnet18_cifar"
    assert theirs.pretrained_cfg["architecture"] == "resnet18"


def test_names_are_unambiguous_and_all_known() -> None:
    names = models.names()
    assert len(set(names)) == len(names)
    assert set(ENTRIES) == {name for name in names if name in ENTRIES}
    assert {"resnet18", "timm/resnet18", "vit_tiny_patch16_224", "mobilenetv1_100"} <= set(names)
    assert "convnext_atto" in names
    assert "timm/convnext_atto" not in names
    assert all(timm.is_model(ENTRIES.get(name, name.removeprefix("timm/"))) for name in names)


def test_macs_at_a_wrong_size_are_one_sentence() -> None:
    vit = models.create("vit_tiny_patch16_224", 10, depth=1)
    with pytest.raises(
        KdbenchError, match=r"does not work on 64 px images: .*img_size = 64, patch_size = 8"
    ) as caught:
        models.macs(vit, 64)
    assert "\n" not in str(caught.value)


def test_a_registered_name_is_refused() -> None:
    entry = timm.model_entrypoint("resnet20_cifar")
    with pytest.raises(KdbenchError, match="already has a model 'resnet20_cifar'"):
        register("resnet20", nn.Module, "fc")
    assert timm.model_entrypoint("resnet20_cifar") is entry


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet8x5", "resnet8x4"),
        ("shufflenet_v1", "shufflenetv1"),
        ("vit_tiny_patch16_244", "vit_tiny_patch16_224"),
    ],
)
def test_misspelt_name(name: str, near: str) -> None:
    with pytest.raises(KdbenchError, match=f"unknown model '{name}'.*did you mean '{near}'"):
        models.create(name, 10)


def test_a_name_near_to_nothing_lists_only_ours() -> None:
    with pytest.raises(KdbenchError, match=r"known: mobilenetv2, .*wrn_40_2$"):
        models.create("hub:some/where", 10)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("resnet8", {"wdths": [8, 8, 16, 32]}, "'resnet8' cannot be built with wdths=.*unexpected keyword"),
        ("resnet8", {"widths": [8, 16]}, "widths takes 4 positive integers"),
        ("vit_tiny_patch16_224", {"patch_sz": 4}, "unexpected keyword"),
        ("resnet8", {"pretrained": True}, "takes no 'pretrained'"),
        ("convnext_atto", {"checkpoint_path": "x.pth"}, "takes no 'checkpoint_path'"),
    ],
)
def test_wrong_arguments_are_one_sentence(name: str, kwargs: dict, message: str) -> None:
    with pytest.raises(KdbenchError, match=message) as caught:
        models.create(name, 10, **kwargs)
    assert "\n" not in str(caught.value)


def test_widths_give_a_narrower_net() -> None:
    net = models.create("resnet8", 10, widths=[4, 8, 12, 20])
    stages, _ = net.forward_stages(torch.zeros(1, 3, 8, 8))
    assert [tuple(stage.shape[1:]) for stage in stages] == [(8, 8, 8), (12, 4, 4), (20, 2, 2)]
    assert net.num_features == 20


def test_cost_of_a_net_counted_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(5 * 16, 7))
    assert models.count_parameters(net) == 5 * 27 + 80 * 7 + 7
    assert models.macs(net, 4) == 16 * 5 * 27 + 80 * 7


def test_macs_count_attention() -> None:
    """One block at D = 192: 12 D^2 per token in linear layers and 2 N^2 D in attention, N = 65."""
    vit = models.create("vit_tiny_patch16_224", 10, img_size=32, patch_size=4, depth=1)
    assert models.macs(vit, 32) == 64 * 192 * 48 + 65 * 12 * 192**2 + 2 * 65**2 * 192 + 192 * 10


def test_measuring_changes_nothing() -> None:
    net = models.create("resnet8", 10).train()
    net.layer2.eval()  # a frozen part
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    models.macs(net, 32)
    models.Network(net, (0.5,) * 3, (0.25,) * 3).facts(32)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", SMALL)
def test_timms_interface(name: str) -> None:
    net = models.create(name, 10).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    final, stages = net.forward_intermediates(x)
    embedding = net.forward_head(final, pre_logits=True)
    assert embedding.shape == (2, net.num_features)
    assert net.head_hidden_size == net.num_features
    assert torch.equal(net.get_classifier()(embedding), net(x))
    assert torch.equal(net.forward_features(x), final)
    assert [place["num_chs"] for place in net.feature_info] == [stage.shape[1] for stage in stages]
    assert [32 // place["reduction"] for place in net.feature_info] == [stage.shape[2] for stage in stages]
    assert all(place["module"] in dict(net.named_modules()) for place in net.feature_info)
    (last,) = net.forward_intermediates(x, indices=[-1], intermediates_only=True)
    assert torch.equal(last, stages[-1])
    with pytest.raises(ValueError, match="output_fmt must be NCHW"):
        net.forward_intermediates(x, output_fmt="NLC")


@pytest.mark.parametrize("name", SMALL)
def test_timm_builds_resets_and_extracts_features(name: str) -> None:
    full = ENTRIES[name]
    net = timm.create_model(full)
    assert net.num_classes == 100
    assert net.pretrained_cfg["input_size"] == (3, 32, 32)
    assert net.pretrained_cfg["mean"] == (0.5071, 0.4867, 0.4408)
    assert net.pretrained_cfg["classifier"] == net.classifier_name
    net.reset_classifier(7)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    net.reset_classifier(0)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, net.num_features)
    extractor = timm.create_model(full, features_only=True)
    assert [m.shape[1] for m in extractor(torch.zeros(2, 3, 32, 32))] == extractor.feature_info.channels()
    assert timm.create_model(full, in_chans=1)(torch.zeros(2, 1, 32, 32)).shape == (2, 100)


@pytest.mark.parametrize("name", SMALL)
def test_each_batchnorm_sees_a_batch_once(name: str) -> None:
    """A map that were normalised twice (WRN's taps) would move the running statistics twice."""
    net = models.create(name, 10).train()
    net.forward_stages(torch.randn(4, 3, 32, 32))
    net.forward_features(torch.randn(4, 3, 32, 32))
    seen = {
        module.num_batches_tracked.item() for module in net.modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert seen <= {1, 2}  # the layers behind the stages ran only the second time
    assert [n.num_batches_tracked.item() for n in net.stage_norms() if n] == [2] * sum(
        map(bool, net.stage_norms())
    )
