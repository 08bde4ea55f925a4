"""Network: one forward pass, for the literature's networks and for timm's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.models.wrapper import Network

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
ALL = Needs(embedding=True, features=True, stages=True, classifier=True)

# name, arguments, size, (channels, size) of each stage and of the features, embedding, linear head, preact
VIT = {"img_size": 32, "patch_size": 4}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 2}
CASES = [
    ("resnet8", {}, 32, [(16, 32), (32, 16), (64, 8)], (64, 8), 64, True, True),
    ("wrn_16_1", {}, 32, [(16, 32), (32, 16), (64, 8)], (64, 8), 64, True, True),
    ("vgg8", {}, 32, [(128, 16), (256, 8), (512, 4), (512, 4)], (512, 4), 512, True, True),
    ("mobilenetv2", {}, 32, [(12, 16), (16, 8), (48, 4), (160, 2)], (1280, 2), 1280, True, True),
    ("shufflenetv2", {}, 32, [(116, 16), (232, 8), (464, 4)], (1024, 4), 1024, True, True),
    ("timm/resnet18", {}, 64, [(64, 16), (128, 8), (256, 4), (512, 2)], (512, 2), 512, True, False),
    ("vgg11_bn", {}, 32, [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)], (512, 1), 4096, False, False),
    (
        "mobilenetv1_100",
        {},
        64,
        [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2)],
        (1024, 2),
        1024,
        True,
        False,
    ),
    ("mobilenetv3_small_100", {}, 64, [(16, 16), (24, 8), (48, 4), (576, 2)], (576, 2), 1024, False, True),
    (
        "efficientnet_b0",
        {},
        64,
        [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)],
        (1280, 2),
        1280,
        True,
        True,
    ),
    (
        "efficientnet_lite0",
        {},
        64,
        [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)],
        (1280, 2),
        1280,
        True,
        True,
    ),
    ("convnext_atto", {}, 64, [(40, 16), (80, 8), (160, 4), (320, 2)], (320, 2), 320, False, True),
    ("densenet121", {}, 64, [(256, 16), (512, 8), (1024, 4), (1024, 2)], (1024, 2), 1024, True, False),
    ("regnetx_002", {}, 64, [(24, 16), (56, 8), (152, 4), (368, 2)], (368, 2), 368, True, False),
    ("resnetv2_50", {}, 64, [(256, 16), (512, 8), (1024, 4), (2048, 2)], (2048, 2), 2048, True, True),
    ("vit_tiny_patch16_224", VIT, 32, [(192, 8)] * 4, (192, 8), 192, False, True),
    (
        "swin_tiny_patch4_window7_224",
        SWIN,
        32,
        [(96, 16), (192, 8), (384, 4), (768, 2)],
        (768, 2),
        768,
        True,
        True,
    ),
    ("mixer_s32_224", {"img_size": 128}, 128, [(512, 4)] * 4, (512, 4), 512, True, True),
]
IDS = [case[0] for case in CASES]


def build(name: str, **kwargs: object) -> Network:
    torch.manual_seed(0)
    return Network(models.create(name, 10, **kwargs), MEAN, STD).eval()


def images(size: int, count: int = 3) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def normalised(x: Tensor) -> Tensor:
    return torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_outputs_and_facts(case: tuple) -> None:
    name, kwargs, size, stages, feature, embedding, linear, preact = case
    net, x = build(name, **kwargs), images(size)
    facts = net.facts(size)
    assert [(s.channels, s.size) for s in facts.stages] == [(c, (s, s)) for c, s in stages]
    assert (facts.feature_channels, facts.feature_size) == (feature[0], (feature[1], feature[1]))
    assert (facts.embedding_size, facts.linear_head, facts.has_preact) == (embedding, linear, preact)

    with torch.no_grad():
        out, whole = net(x, ALL), net.model(normalised(x))
    torch.testing.assert_close(out.logits, whole, rtol=1e-4, atol=1e-5)
    assert [tuple(s.shape) for s in out.stages] == [(3, c, s, s) for c, s in stages]
    assert tuple(out.features.shape) == (3, feature[0], feature[1], feature[1])
    assert torch.equal(out.classify(out.embedding), out.logits)
    if linear:
        torch.testing.assert_close(out.embedding, out.features.mean((2, 3)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["resnet8", "wrn_16_1", "mobilenetv2", "efficientnet_lite0", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_the_same_bits_whatever_is_needed(name: str, training: bool) -> None:
    first = build(name, **(VIT if name.startswith("vit") else {}))
    needs_list = [
        Needs(),
        Needs(embedding=True),
        Needs(features=True),
        Needs(stages=True),
        Needs(preact=True),
        ALL,
    ]
    results = []
    for needs in needs_list:
        net = copy.deepcopy(first).train(training)
        results.append(net(images(32), needs))
    assert all(torch.equal(result.logits, results[0].logits) for result in results)


@torch.no_grad()
def test_only_what_is_needed_is_returned() -> None:
    out = build("resnet8")(images(32), Needs(features=True))
    assert (out.embedding, out.stages, out.preact, out.classify) == (None, None, None, None)
    assert out.features is not None


@torch.no_grad()
def test_features_of_a_vit_are_its_final_tokens_in_place() -> None:
    """Patch (row, column) of the features is token 1 + row * 8 + column: the class token is dropped."""
    net, x = build("vit_tiny_patch16_224", **VIT), images(32)
    tokens = net.model.forward_features(normalised(x))
    features = net(x, ALL).features
    torch.testing.assert_close(features[:, :, 2, 5], tokens[:, 1 + 2 * 8 + 5])


@torch.no_grad()
def test_stages_of_a_vit_are_blocks_3_6_9_12() -> None:
    net, x = build("vit_tiny_patch16_224", **VIT), images(32)
    blocks = net.model.forward_intermediates(normalised(x), intermediates_only=True)
    for actual, expected in zip(net(x, ALL).stages, blocks[2::3], strict=True):
        torch.testing.assert_close(actual, expected)


@torch.no_grad()
def test_features_of_a_swin_are_transposed() -> None:
    net, x = build("swin_tiny_patch4_window7_224", **SWIN), images(32)
    torch.testing.assert_close(
        net(x, ALL).features, net.model.forward_features(normalised(x)).permute(0, 3, 1, 2)
    )


@torch.no_grad()
def test_preact_of_ours_and_of_nets_without_relu() -> None:
    out = build("resnet8")(images(32), Needs(stages=True, preact=True))
    assert all(torch.equal(s, torch.relu(p)) for s, p in zip(out.stages, out.preact, strict=True))
    out = build("convnext_atto")(images(32), Needs(stages=True, preact=True))
    assert all(torch.equal(s, p) for s, p in zip(out.stages, out.preact, strict=True))


def test_a_model_without_preact_is_an_error() -> None:
    with pytest.raises(KdbenchError, match="'resnet18' cannot give maps before their last ReLU"):
        build("timm/resnet18")(images(32), Needs(preact=True))


def test_last_norms_are_copies_of_the_stage_ends() -> None:
    net = build("resnet8")
    nn.init.uniform_(net.model.layer2[-1].bn2.weight)
    facts = net.facts(32)
    weight = net.model.layer2[-1].bn2.weight.detach().clone()
    assert torch.equal(facts.stages[1].bn_weight, weight)
    nn.init.zeros_(net.model.layer2[-1].bn2.weight)
    assert torch.equal(facts.stages[1].bn_weight, weight)
    assert build("shufflenetv2").facts(32).stages[0].bn_weight is None
    assert build("convnext_atto").facts(32).stages[0].bn_bias is None


@pytest.mark.parametrize(
    "name", ["resnet8", "wrn_16_1", "shufflenetv2", "mobilenetv2", "vit_tiny_patch16_224"]
)
def test_gradient_reaches_every_parameter_and_each_output(name: str) -> None:
    net = build(name, **(VIT if name.startswith("vit") else {})).train()
    out = net(images(32), Needs(embedding=True, features=True, stages=True, preact=True, classifier=True))
    tensors = [out.embedding, out.features, *out.stages, *out.preact, out.classify(out.embedding.detach())]
    for tensor in tensors:
        grads = torch.autograd.grad(
            tensor.square().sum(), list(net.parameters()), retain_graph=True, allow_unused=True
        )
        assert any(g is not None and bool(g.any()) for g in grads)
    out.logits.square().sum().backward()
    without_gradient = [key for key, p in net.named_parameters() if p.grad is None]
    assert without_gradient == []


def test_outputs_are_fp32_under_autocast_and_classify_is_exact() -> None:
    net = build("resnet8")
    needs = Needs(embedding=True, features=True, stages=True, preact=True, classifier=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(images(32), needs)
        again = out.classify(out.embedding)
    tensors = [out.logits, out.embedding, out.features, *out.stages, *out.preact]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert torch.equal(again, net.model.fc(out.embedding))
    assert torch.equal(out.logits, again)
    assert not torch.equal(out.logits, net(images(32), needs).logits)  # the body did run in bf16


def test_state_dict_is_the_models() -> None:
    net = build("resnet8")
    assert {key.removeprefix("model.") for key in net.state_dict()} == set(net.model.state_dict())


def test_channels_last_gives_the_same() -> None:
    net = build("resnet8")
    expected = net(images(32)).logits
    channels_last = net.to(memory_format=torch.channels_last)(
        images(32).to(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(channels_last.logits, expected, rtol=1e-4, atol=1e-5)


def test_a_head_that_starts_at_zero_does_not_look_linear() -> None:
    net = build("convnext_atto")
    nn.init.zeros_(net.model.get_classifier().weight)
    assert not net.facts(32).linear_head


def test_models_that_do_not_fit_are_named() -> None:
    with pytest.raises(KdbenchError, match=r"'Linear' cannot be used: it has no timm forward_intermediates"):
        Network(nn.Linear(3, 3), MEAN, STD)
    with pytest.raises(KdbenchError, match=r"'deit_tiny_distilled_patch16_224' .* not one linear layer"):
        build("deit_tiny_distilled_patch16_224")
    with pytest.raises(KdbenchError, match="'vit_tiny_patch16_224' does not work on 28 px images"):
        build("vit_tiny_patch16_224", **VIT).facts(28)
    net = build("resnet8")
    net.model.forward = lambda x: net.model.fc(torch.relu(x.mean((2, 3)).repeat(1, 22)[:, :64]))
    with pytest.raises(KdbenchError, match="'resnet8_cifar' cannot be used: its logits are not"):
        net.facts(32)
