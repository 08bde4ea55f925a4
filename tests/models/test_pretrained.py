"""Weights that a name names: every tensor is the file's, or the call fails."""

import dataclasses

import pytest
import timm
import torch
from huggingface_hub import errors

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models import pretrained
from kdbench.models.naming import meaning, names_weights
from kdbench.suites import ModelSpec
from kdbench.utils.state_dicts import load_weights, save_weights
from tests.support.local_networks import MEAN, STD, edit, network, write


@pytest.fixture
def vit(tmp_path):
    """A transformer of 5 classes and 32 px in a folder: its name, and the network."""
    model = network("test_vit", 5, img_size=32)
    return write(tmp_path / "vit", model, input_size=(3, 32, 32)), model


def differing(one, other):
    """Names of the tensors that differ."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return {k for k in first if first[k].shape != second[k].shape or not torch.equal(first[k], second[k])}


@pytest.mark.parametrize(
    ("name", "arch", "weights"),
    [
        ("resnet18", "resnet18_cifar", ""),
        ("cifar:resnet18", "resnet18_cifar", ""),
        ("timm:resnet18", "resnet18", ""),
        ("timm/resnet18", "resnet18", ""),
        ("resnet18.a1_in1k", "resnet18", "resnet18.a1_in1k"),
        ("timm:resnet18.a1_in1k", "resnet18", "resnet18.a1_in1k"),
        ("convnext_atto", "convnext_atto", ""),
        ("convnext_atto.d2_in1k", "convnext_atto", "convnext_atto.d2_in1k"),
    ],
)
def test_which_network_a_name_means(name, arch, weights):
    known = meaning(name)
    assert (known.arch, known.weights) == (arch, weights)
    assert names_weights(name) == bool(weights)
    assert models.exists(name)


def test_prefixes_settle_which_resnet18():
    ours, theirs = models.create("cifar:resnet18", 3), models.create("timm:resnet18", 3)
    assert (ours.conv1.stride, theirs.conv1.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.a1_in2k", "unknown weights 'a1_in2k' of timm/resnet18.*did you mean 'a1_in1k'"),
        ("resnet20.a1_in1k", "unknown model 'resnet20.a1_in1k'"),
        ("test_coatnet.untrained", "unknown weights 'untrained' of test_coatnet"),
        ("cifar:resnet19", "unknown model 'cifar:resnet19'.*did you mean 'cifar:resnet18'"),
        ("cifar:convnext_atto", "unknown model 'cifar:convnext_atto' .not among kdbench's own"),
        ("timm:nothing", "unknown model 'timm:nothing'"),
        ("local-dir:nowhere", "there is no nowhere/config.json; the folder must hold"),
    ],
)
def test_an_unknown_name_is_never_random_weights(name, message):
    with pytest.raises(KdbenchError, match=message):
        models.create(name, 3)


def test_equal_classes_give_every_tensor(vit):
    name, model = vit
    assert differing(models.create(name, 5), model) == set()


def test_other_classes_give_a_new_head_from_the_generator(vit):
    name, model = vit
    torch.manual_seed(1)
    first = models.create(name, 3)
    torch.manual_seed(2)
    second = models.create(name, 3)
    heads = {"head.weight", "head.bias"}
    assert differing(first, model) == heads
    assert differing(first, second) == {"head.weight"}


def test_another_size_resamples_positions_alone(vit):
    name, model = vit
    assert differing(models.create(name, 5, img_size=64), model) == {"pos_embed"}


def test_args_that_need_more_weights_are_refused(vit):
    with pytest.raises(KdbenchError, match=r"are not all of the network: they lack blocks.6.*leave out args"):
        models.create(vit[0], 3, depth=8)
    with pytest.raises(
        KdbenchError, match=r"do not fit the network that they name: .*size mismatch"
    ) as caught:
        models.create(vit[0], 3, embed_dim=32)
    assert "\n" not in str(caught.value)


def test_arguments_that_load_other_weights_are_refused(vit):
    with pytest.raises(KdbenchError, match="takes no 'pretrained'; weights are part of a name"):
        models.create(vit[0], 3, pretrained=True)


def test_a_folder_that_lacks_tensors_is_refused(vit, tmp_path):
    file = tmp_path / "vit" / "model.safetensors"
    state = load_weights(file)
    save_weights(file, {key: value for key, value in state.items() if "blocks.5" not in key})
    with pytest.raises(KdbenchError, match=r"could not be loaded: .*look at its config.json"):
        models.create(vit[0], 3)


def test_a_folder_of_another_network_is_refused(vit, tmp_path):
    edit(tmp_path / "vit", architecture="no_network")
    with pytest.raises(KdbenchError, match="is a network 'no_network', which timm does not have"):
        models.create(vit[0], 3)
    (tmp_path / "vit" / "config.json").write_text("no JSON")
    with pytest.raises(KdbenchError, match="could not be loaded"):
        models.create(vit[0], 3)


def test_grey_networks_are_refused(tmp_path):
    name = write(tmp_path / "grey", network("test_resnet", 3, in_chans=1))
    with pytest.raises(KdbenchError, match="takes images of 1 channels"):
        models.create(name, 3)


def test_a_kdbench_network_may_be_in_a_folder(tmp_path):
    model = network("resnet8_cifar", 4, widths=[4, 4, 8, 8])
    name = write(tmp_path / "own", model)
    edit(tmp_path / "own", model_args={"widths": [4, 4, 8, 8]})
    assert differing(models.create(name, 4), model) == set()
    assert pretrained.bare(ModelSpec(name)) == ModelSpec("resnet8", {"widths": [4, 4, 8, 8]})


def test_bare_networks_have_no_weights(vit):
    assert pretrained.bare(ModelSpec("timm:resnet18.a1_in1k")) == ModelSpec("timm/resnet18")
    assert pretrained.bare(ModelSpec("resnet18")) == ModelSpec("resnet18")
    assert pretrained.bare(ModelSpec(vit[0], {"img_size": 64})).arch == "test_vit"


# --- beside the results ---


def test_obtained_weights_are_the_same_bits_without_the_folder(vit, tmp_path):
    name, model = vit
    spec = pretrained.obtain(ModelSpec(name), tmp_path / "place", print)
    assert (spec.arch, spec.weights.classes, spec.weights.size) == ("test_vit", 5, 32)
    assert (spec.weights.mean, spec.weights.std) == (MEAN, STD)
    (tmp_path / "vit" / "model.safetensors").unlink()
    assert differing(pretrained.load(spec, 5, tmp_path / "place"), model) == set()


def test_a_folder_that_changed_is_read_anew(tmp_path):
    place = tmp_path / "place"
    name = write(tmp_path / "net", network("test_resnet", 3, seed=1))
    first = pretrained.obtain(ModelSpec(name), place, print)
    write(tmp_path / "net", network("test_resnet", 3, seed=2))
    second = pretrained.obtain(ModelSpec(name), place, print)
    assert first.weights.id != second.weights.id
    assert differing(pretrained.load(first, 3, place), network("test_resnet", 3, seed=1)) == set()


def test_a_changed_configuration_of_equal_weights_is_read_anew(vit, tmp_path):
    place, name = tmp_path / "place", vit[0]
    first = pretrained.obtain(ModelSpec(name), place, print)
    write(tmp_path / "vit", vit[1], mean=(0.4, 0.4, 0.4), input_size=(3, 32, 32))
    second = pretrained.obtain(ModelSpec(name), place, print)
    assert (first.weights.mean, second.weights.mean) == (MEAN, (0.4, 0.4, 0.4))
    assert first.weights.id == second.weights.id
    assert first.identity() != second.identity()


def test_a_file_that_was_changed_is_refused(vit, tmp_path):
    spec = pretrained.obtain(ModelSpec(vit[0]), tmp_path, print)
    wrong = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, id="0" * 12))
    with pytest.raises(KdbenchError, match="changed while it was in use"):
        pretrained.load(wrong, 5, tmp_path)
    (tmp_path / spec.weights.file).write_bytes(b"damaged")
    with pytest.raises(KdbenchError, match=r"is damaged .*remove it and run again"):
        pretrained.load(spec, 5, tmp_path)
    (tmp_path / spec.weights.file).unlink()
    with pytest.raises(KdbenchError, match="is gone"):
        pretrained.load(spec, 5, tmp_path)


@pytest.mark.parametrize(
    "name", ["timm:test_resnet.r160_in1k", "timm/test_resnet.r160_in1k", "hf-hub:owner/net@main"]
)
def test_a_hub_is_read_once(tmp_path, monkeypatch, messages, name):
    """The hub is one that serves a folder."""
    served = tmp_path / "served"
    write(served, network("test_resnet", 6, seed=3))
    create = timm.create_model

    def answer(model, pretrained=False, **kwargs):
        return create(f"local-dir:{served}" if pretrained and "state_dict" not in str(kwargs) else model,
                      pretrained=pretrained, **kwargs)  # fmt: skip

    def configuration(place):
        assert place == "owner/net@main"
        return {}, "test_resnet", {"num_classes": 6}

    monkeypatch.setattr(timm, "create_model", answer)
    monkeypatch.setattr("kdbench.models.naming.load_model_config_from_hf", configuration)
    for _ in range(2):
        spec = pretrained.obtain(ModelSpec(name), tmp_path / "place", messages.append)
    assert messages == [f"fetching the weights {name}"]
    assert differing(pretrained.load(spec, 6, tmp_path / "place"), network("test_resnet", 6, seed=3)) == set()


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "hf-hub:owner/net"])
def test_offline_is_one_sentence_with_the_remedy(monkeypatch, name):
    def nothing(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("An error happened\nand more lines")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", nothing)
    with pytest.raises(KdbenchError) as caught:
        models.create(name, 3)
    assert str(caught.value) == (
        f"{name} could not be loaded: the hub cannot be reached, and this machine has no copy; go online, or copy its "
        f"config.json and model.safetensors into a folder and write local-dir:FOLDER in place of {name}"
    )
