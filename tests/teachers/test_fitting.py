"""A network's weights are located under any keys and prefixes of a checkpoint; damaged ones are refused by name."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.teachers import weights
from kdbench.teachers.fitting import mismatch, parts, select_part
from kdbench.utils.state_dicts import state_dicts

torch.manual_seed(3)
NET = models.create("resnet8", 4, widths=[4, 4, 8, 8])
STATE = {key: value.clone() for key, value in NET.state_dict().items()}
OTHER = {key: value + 1 for key, value in STATE.items()}
FLOAT = [key for key, value in STATE.items() if value.is_floating_point()]
USUAL = ("module", "_orig_mod", "model", "student", "net", "backbone", "encoder", "teacher", "whatever")
words = st.lists(st.sampled_from(USUAL), max_size=5)


def under(state, prefix):
    return {".".join([*prefix, key]): value for key, value in state.items()}


def inside(content, keys):
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    return content


def read(tmp_path, content):
    path = tmp_path / "t.pth"
    torch.save(content, path)
    return select_part(STATE, parts(state_dicts(path)), "resnet8", path)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


def loaded(content, path):
    torch.save(content, path)
    net = models.create("resnet8", 4, widths=[4, 4, 8, 8])
    weights.fill_from_parts(net, parts(state_dicts(path)), "resnet8", path)
    return net.state_dict()


# --- where they are ---


@settings(max_examples=40, deadline=None)
@given(words, st.lists(st.sampled_from(["model", "state_dict", "checkpoint", "mine"]), max_size=3))
def test_any_nesting_loads_to_the_same_bits(tmp_path_factory, prefix, keys):
    path = tmp_path_factory.mktemp("w") / "t.pth"
    assert equal(loaded(inside(under(STATE, prefix), keys), path), STATE)


def test_names_that_begin_with_a_prefix_stay(tmp_path):
    """A network whose own names all begin so is used as it is; a second prefix of the same word is removed."""
    own = under(STATE, ["model"])
    for prefix in ([], ["model"], ["module", "model"]):
        part, remark = select_part(own, parts({(): under(own, prefix)}), "n", tmp_path)
        assert equal(part.state, own)
        assert remark == ""


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "swa_model"])
@pytest.mark.parametrize("first", [False, True])
def test_averaged_weights_go_before_the_others(tmp_path, key, first):
    items = [("state_dict", STATE), (key, under(OTHER, ["module"]))]
    part, remark = read(tmp_path, dict(reversed(items) if first else items))
    assert equal(part.state, OTHER)
    assert remark == f"{tmp_path / 't.pth'}: the averaged (EMA) weights under '{key}.module' are used"


def test_an_average_without_statistics_is_skipped_with_a_remark(tmp_path):
    """Many keep an average of the parameters alone: no BatchNorm statistics."""
    shadow = {key: STATE[key] for key, _ in NET.named_parameters()}
    part, remark = read(tmp_path, {"model": STATE, "ema": {"decay": 0.999, "shadow": shadow}})
    assert equal(part.state, STATE)
    assert "the weights under 'model' are used; the averaged (EMA) ones do not fit" in remark
    assert "lacks bn1.running_mean, bn1.running_var" in remark


def test_torchs_averaged_model_is_used_without_its_counter(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(NET)
    part, remark = read(tmp_path, averaged.state_dict())
    assert equal(part.state, STATE)
    assert remark.endswith("of its tensors only those under 'module' are used, without n_averaged")


def test_buffers_of_a_loss_beside_the_network_are_left_out(tmp_path):
    content = {"state_dict": {**under(STATE, ["model"]), "criterion.weight": torch.ones(4)}}
    part, remark = read(tmp_path, content)
    assert equal(part.state, STATE)
    assert remark.endswith("those under 'state_dict.model' are used, without criterion.weight")


@pytest.mark.parametrize(
    "content",
    [
        {"student": STATE, "teacher": OTHER},
        {"state_dict": {**under(STATE, ["student"]), **under(OTHER, ["teacher"])}},
        {"model_ema": STATE, "ema": OTHER, "model": STATE},
    ],
)
def test_none_of_several_that_differ_is_chosen(tmp_path, content):
    with pytest.raises(KdbenchError, match=r"t\.pth holds several weights that fit resnet8, '.*' and '"):
        read(tmp_path, content)


def test_the_same_weights_twice_are_no_choice(tmp_path):
    part, remark = read(tmp_path, {"model": STATE, "best": dict(STATE)})
    assert equal(part.state, STATE)
    assert remark == ""


def test_only_the_part_that_fits_counts(tmp_path):
    """A distiller's student and teacher of two architectures; momentum under the names of the parameters."""
    small = models.create("resnet8", 4, widths=[2, 2, 4, 4]).state_dict()
    content = {"student": small, "teacher": STATE, "momentum": {key: STATE[key] for key in FLOAT[:5]}}
    assert equal(read(tmp_path, content)[0].state, STATE)


def test_the_mismatch_of_the_nearest_part_is_reported(tmp_path):
    lacking = {key: value for key, value in STATE.items() if key != "fc.bias"}
    with pytest.raises(KdbenchError) as caught:
        read(tmp_path, {"epoch": 1, "state_dict": under(lacking, ["_orig_mod", "module"])})
    assert str(caught.value) == (
        f"{tmp_path / 't.pth'} does not fit resnet8: it lacks fc.bias; is it another model?"
    )


def test_a_dictionary_that_contains_itself_is_read(tmp_path):
    content = {"model": STATE}
    content["again"] = content
    assert equal(read(tmp_path, content)[0].state, STATE)
    assert list(state_dicts(tmp_path / "t.pth")) == [("model",)]


def test_names_of_a_thousand_parts_are_no_crash(tmp_path):
    deep = {".".join(["a"] * 2000) + f".{n}": torch.ones(1) for n in range(2)}
    with pytest.raises(KdbenchError, match="does not fit resnet8"):
        read(tmp_path, deep)


# --- what their values are ---


DAMAGE = {
    "not finite": lambda state, key: {**state, key: torch.full_like(state[key], float("nan"))},
    "values that are not": lambda state, key: {**state, key: state[key] * float("inf")},
    "int8": lambda state, key: {**state, key: state[key].to(torch.int8)},
    "float8_e4m3fn": lambda state, key: {**state, key: state[key].to(torch.float8_e4m3fn)},
    "qint8": lambda state, key: {
        **state, key: torch.quantize_per_tensor(state[key], 0.1, 0, torch.qint8)
    },
    "complex64": lambda state, key: {**state, key: state[key].to(torch.complex64)},
    "sparse_coo": lambda state, key: {**state, key: state[key].to_sparse()},
    "without values": lambda state, key: {**state, key: state[key].to("meta")},
    "lacks": lambda state, key: {k: v for k, v in state.items() if k != key},
    "instead of": lambda state, key: {**state, key: torch.cat([state[key]] * 2)},
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(DAMAGE)), st.sampled_from(FLOAT), words)
def test_any_damage_is_refused_naming_the_key(tmp_path_factory, kind, key, prefix):
    path = tmp_path_factory.mktemp("w") / "t.pth"
    with pytest.raises(KdbenchError) as caught:
        loaded(under(DAMAGE[kind](STATE, key), prefix), path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert f" {key}" in text
    assert kind in text
    assert "\n" not in text


def test_negative_variances_are_refused():
    state = {**STATE, "bn1.running_var": -STATE["bn1.running_var"]}
    with pytest.raises(KdbenchError, match=r"bn1\.running_var has negative variances"):
        weights.fill(NET, state, "n", "f.pth")


def test_a_value_too_large_for_fp32_is_refused():
    wide = {**STATE, "fc.bias": torch.full((4,), 1e300, dtype=torch.float64)}
    with pytest.raises(KdbenchError, match=r"fc\.bias has values that are not finite"):
        weights.fill(NET, wide, "n", "f.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_accepted(tmp_path, dtype):
    """Their counters too: converting a whole network to half precision converts them."""
    state = loaded({key: value.to(dtype) for key, value in STATE.items()}, tmp_path / "t.pth")
    for key, value in STATE.items():
        assert torch.equal(state[key], value.to(dtype).to(value.dtype))


# --- what a fit says of the network ---


def test_only_the_known_twins_share_names_and_shapes():
    """Of all others of kdbench's own the weights tell the network."""
    with torch.device("meta"):
        skeletons = {name: models.create(name, 10).state_dict() for name in models.ENTRIES}
    pairs = itertools.combinations(skeletons, 2)
    assert {pair for pair in pairs if not mismatch(*(skeletons[n] for n in pair))} == {weights.TWINS}
