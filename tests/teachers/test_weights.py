"""Teachers from weights files: checked against their architecture, identified by their content."""

import pytest
import torch

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.runner.run import run
from kdbench.suites import ModelSpec
from kdbench.teachers import weights as teachers
from kdbench.train.callbacks import Progress
from kdbench.utils.state_dicts import save_weights, weights_digest
from tests.support.teachers import tanh_inputs


@pytest.fixture
def spec(lab):
    return lab.suite.models["teacher"]


def opened(lab, path, name="teacher", expected=None):
    return teachers.open_teacher(name, lab.suite.models["teacher"], path, lab.suite.dataset, expected)


# --- the file ---


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_file_is_found_by_the_teachers_name(tmp_path, suffix):
    (tmp_path / f"resnet56{suffix}").write_text("")
    (tmp_path / "resnet56.txt").write_text("")
    assert teachers.find_file("resnet56", tmp_path) == tmp_path / f"resnet56{suffix}"


def test_a_missing_file_names_the_candidates_and_the_remedy(tmp_path):
    with pytest.raises(KdbenchError) as caught:
        teachers.find_file("resnet56", tmp_path)
    text = str(caught.value)
    assert f"there is no resnet56.pth or resnet56.pt or resnet56.safetensors in {tmp_path}" in text
    assert "leave out --teacher-weights" in text


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_is_an_error(tmp_path, kind):
    folder = tmp_path / "weights"
    if kind == "file":
        folder.write_text("")
    with pytest.raises(
        KdbenchError, match=rf"--teacher-weights {folder} is not a folder.*hold resnet56\.pth"
    ):
        teachers.find_file("resnet56", folder)


# --- what does not fit ---


def test_a_missing_key_is_named(lab, tmp_path, teacher_state):
    partial = {k: v for k, v in teacher_state.items() if not k.startswith("fc")}
    torch.save(partial, tmp_path / "t.pth")
    with pytest.raises(KdbenchError) as caught:
        opened(lab, tmp_path / "t.pth")
    assert str(caught.value) == (
        f"{tmp_path / 't.pth'} does not fit teacher: it lacks fc.weight, fc.bias; is it another model?"
    )


def test_an_unknown_key_is_named(lab, tmp_path, teacher_state):
    torch.save({**teacher_state, "head.weight": torch.ones(1)}, tmp_path / "t.pth")
    with pytest.raises(
        KdbenchError, match=r"t\.pth does not fit teacher: it has the unknown head\.weight; is it"
    ):
        opened(lab, tmp_path / "t.pth")


def test_another_shape_is_named_with_both_shapes(lab, tmp_path, teacher_state):
    torch.save({**teacher_state, "fc.weight": torch.ones(100, 16)}, tmp_path / "t.pth")
    with pytest.raises(
        KdbenchError, match=r"differs in shape: fc\.weight is \(100, 16\) instead of \(4, 16\)"
    ):
        opened(lab, tmp_path / "t.pth")


def test_another_architecture_names_three_and_counts_the_rest(lab, tmp_path):
    torch.save(models.create("resnet14", 4).state_dict(), tmp_path / "t.pth")
    with pytest.raises(
        KdbenchError, match=r"does not fit teacher: .*layer\d.* and \d+ more; is it another model\?"
    ):
        opened(lab, tmp_path / "t.pth")


def test_counters_of_old_checkpoints_may_be_missing(lab, tmp_path, teacher_state):
    """num_batches_tracked came with torch 0.4; it changes nothing in eval mode, and not the hash."""
    counted = {k: v + 7 if k.endswith("num_batches_tracked") else v for k, v in teacher_state.items()}
    bare = {k: v for k, v in teacher_state.items() if not k.endswith("num_batches_tracked")}
    assert len(bare) < len(counted)
    torch.save(counted, tmp_path / "a.pth")
    torch.save(bare, tmp_path / "b.pth")
    assert opened(lab, tmp_path / "a.pth").id == opened(lab, tmp_path / "b.pth").id == lab.teacher.id


def test_the_prefix_of_dataparallel_is_removed(lab, tmp_path, teacher_state):
    torch.save({"model": {f"module.{k}": v for k, v in teacher_state.items()}}, tmp_path / "t.pth")
    assert opened(lab, tmp_path / "t.pth").id == lab.teacher.id


def test_fill_loads_every_value(lab, spec, tmp_path):
    torch.manual_seed(1)
    source, target = (models.create(spec.arch, 4, **spec.args) for _ in range(2))
    for buffer in source.buffers():
        buffer.add_(3)
    teachers.fill(target, source.state_dict(), "t", tmp_path)
    loaded = target.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in source.state_dict().items())


# --- the hash ---


def test_the_id_is_that_of_the_content_not_of_the_file(lab, tmp_path, teacher_state):
    torch.save({"state_dict": teacher_state, "epoch": 240}, tmp_path / "a.pth")
    save_weights(tmp_path / "b.safetensors", dict(reversed(teacher_state.items())))
    ids = {opened(lab, tmp_path / "a.pth").id, opened(lab, tmp_path / "b.safetensors", "other", 70.0).id}
    assert ids == {lab.teacher.id}


@pytest.mark.parametrize("key", ["fc.bias", "bn1.running_mean"])
def test_one_changed_number_makes_another_teacher(lab, tmp_path, teacher_state, key):
    changed = {**teacher_state, key: teacher_state[key] + 1e-6}
    torch.save(changed, tmp_path / "t.pth")
    assert opened(lab, tmp_path / "t.pth").id != lab.teacher.id


def test_weights_in_half_precision_are_another_teacher(lab, tmp_path, teacher_state):
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in teacher_state.items()}, tmp_path / "t.pth"
    )
    half = opened(lab, tmp_path / "t.pth")
    assert half.id != lab.teacher.id
    assert {p.dtype for p in half.net(lab.suite.dataset).parameters()} == {torch.float32}


def test_a_file_replaced_during_a_job_is_refused(lab, tmp_path, teacher_state):
    """Rows record the hash computed at the start, so the weights must not change."""
    path = tmp_path / "t.pth"
    torch.save(teacher_state, path)
    teacher = opened(lab, path)
    torch.save({**teacher_state, "fc.bias": teacher_state["fc.bias"] + 1}, path)
    with pytest.raises(KdbenchError, match=r"t\.pth.*changed"):
        teacher.net(lab.suite.dataset)


def test_the_net_is_frozen_and_in_eval_mode(lab):
    net = lab.teacher.net(lab.suite.dataset)
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())


# --- the network is part of it ---


def test_another_activation_is_another_teacher_and_cell(lab, tmp_path):
    one, two = tanh_inputs(lab, tmp_path / "given", methods=["kd"])
    assert one.teachers["teacher"].id != two.teachers["teacher"].id
    assert not {cell.id for cell in one.cells()} & {cell.id for cell in two.cells()}


def test_a_run_with_another_activation_trains_again(lab, tmp_path):
    tanh_inputs(lab, tmp_path / "given")
    rows = []
    for args in ("{}", '{ act_layer = "tanh" }', "{}"):
        suite = lab.suite_file(('resnet8", args = { widths = [8, 8, 8, 16] }', f'resnet10t", args = {args}'))
        usual = {"data_dir": lab.data, "results": tmp_path / "r", "teacher_weights": tmp_path / "given"}
        outcome = run(suite, ["kd"], device="cpu", progress=Progress(), **usual)
        assert outcome.complete
        rows.append(outcome.rows.iloc[0])
    assert rows[0]["cell_id"] == rows[2]["cell_id"] != rows[1]["cell_id"]
    assert rows[0]["run_id"] == rows[2]["run_id"] != rows[1]["run_id"]


def test_the_id_is_that_of_the_weights_where_they_suffice(lab, tmp_path):
    """Two names of one network are one teacher; arguments are part of the id, even if they are the defaults."""
    torch.manual_seed(1)
    state = models.create("resnet20", 4).state_dict()
    torch.save(state, tmp_path / "t.pth")
    floats = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}

    def known(name, arch, **args):
        spec = ModelSpec(arch, args)
        return teachers.open_teacher(name, spec, tmp_path / "t.pth", lab.suite.dataset, None).id

    assert known("a", "resnet20") == known("b", "resnet20_cifar") == weights_digest(floats)
    assert known("a", "resnet20", widths=[16, 16, 32, 64]) == known("b", "resnet20", widths=[16, 16, 32, 64])
    assert known("a", "resnet20", widths=[16, 16, 32, 64]) != weights_digest(floats)


def test_twins_with_the_same_weights_are_two_teachers(lab, tmp_path):
    torch.save(models.create("mobilenetv2", 4).state_dict(), tmp_path / "t.pth")
    data, specs = lab.suite.dataset, [ModelSpec(name) for name in teachers.TWINS]
    assert len({teachers.open_teacher("t", s, tmp_path / "t.pth", data, None).id for s in specs}) == 2
