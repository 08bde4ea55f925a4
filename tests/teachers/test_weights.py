"""Teachers from files: what does not fit is told, what fits is known by its content."""

import dataclasses
import os
import signal
import sys

import pytest
import timm
import torch

from kdbench import models
from kdbench.cli.main import main
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.runner import teachers as teaching
from kdbench.runner.run import run
from kdbench.runner.teachers import (
    accuracy,
    announce,
    locate_teacher,
    obtain_teacher,
    teacher_cell,
    trained_path,
)
from kdbench.suites import ModelSpec
from kdbench.teachers import weights as teachers
from kdbench.train.callbacks import Progress
from kdbench.train.teacher_outputs import table_key
from kdbench.utils.hashing import canonical
from kdbench.utils.state_dicts import save_weights, weights_digest
from tests.support.cli_process import kdbench
from tests.support.heard import Heard


@pytest.fixture
def spec(lab):
    return lab.suite.models["teacher"]


@pytest.fixture
def state(lab):
    return lab.teacher.net(lab.suite.dataset).model.state_dict()


def opened(lab, path, name="teacher", expected=None):
    return teachers.open_teacher(name, lab.suite.models["teacher"], path, lab.suite.dataset, expected)


# --- the file ---


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_file_is_found_by_the_teachers_name(tmp_path, suffix):
    (tmp_path / f"resnet56{suffix}").write_text("")
    (tmp_path / "resnet56.txt").write_text("")
    assert teachers.find_file("resnet56", tmp_path) == tmp_path / f"resnet56{suffix}"


def test_a_missing_file_names_what_was_looked_for_and_the_way_out(tmp_path):
    with pytest.raises(KdbenchError) as caught:
        teachers.find_file("resnet56", tmp_path)
    text = str(caught.value)
    assert f"there is no resnet56.pth or resnet56.pt or resnet56.safetensors in {tmp_path}" in text
    assert "leave out --teacher-weights" in text


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_is_told(tmp_path, kind):
    folder = tmp_path / "weights"
    if kind == "file":
        folder.write_text("")
    with pytest.raises(
        KdbenchError, match=rf"--teacher-weights {folder} is not a folder.*hold resnet56\.pth"
    ):
        teachers.find_file("resnet56", folder)


# --- what does not fit ---


def test_a_key_that_lacks_is_named(lab, tmp_path, state):
    gone = {k: v for k, v in state.items() if not k.startswith("fc")}
    torch.save(gone, tmp_path / "t.pth")
    with pytest.raises(KdbenchError) as caught:
        opened(lab, tmp_path / "t.pth")
    assert str(caught.value) == (
        f"{tmp_path / 't.pth'} does not fit teacher: it lacks fc.weight, fc.bias; is it another model?"
    )


def test_a_foreign_key_is_named(lab, tmp_path, state):
    torch.save({**state, "head.weight": torch.ones(1)}, tmp_path / "t.pth")
    with pytest.raises(
        KdbenchError, match=r"t\.pth does not fit teacher: it has the unknown head\.weight; is it"
    ):
        opened(lab, tmp_path / "t.pth")


def test_a_shape_that_differs_is_named_with_both_shapes(lab, tmp_path, state):
    torch.save({**state, "fc.weight": torch.ones(100, 16)}, tmp_path / "t.pth")
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


def test_counters_of_old_checkpoints_may_be_missing(lab, tmp_path, state):
    """num_batches_tracked came with torch 0.4; it changes nothing in eval mode, and not the hash."""
    counted = {k: v + 7 if k.endswith("num_batches_tracked") else v for k, v in state.items()}
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(bare) < len(counted)
    torch.save(counted, tmp_path / "a.pth")
    torch.save(bare, tmp_path / "b.pth")
    assert opened(lab, tmp_path / "a.pth").id == opened(lab, tmp_path / "b.pth").id == lab.teacher.id


def test_the_prefix_of_dataparallel_is_taken_off(lab, tmp_path, state):
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "t.pth")
    assert opened(lab, tmp_path / "t.pth").id == lab.teacher.id


def test_fill_loads_every_value(lab, spec, tmp_path):
    torch.manual_seed(1)
    source, target = (models.create(spec.arch, 4, **spec.args) for _ in range(2))
    for buffer in source.buffers():
        buffer.add_(3)
    teachers.fill(target, source.state_dict(), "t", tmp_path)
    found = target.state_dict()
    assert all(torch.equal(found[k], v) for k, v in source.state_dict().items())


# --- the hash ---


def test_the_id_is_of_the_content_not_of_the_file(lab, tmp_path, state):
    torch.save({"state_dict": state, "epoch": 240}, tmp_path / "a.pth")
    save_weights(tmp_path / "b.safetensors", dict(reversed(state.items())))
    ids = {opened(lab, tmp_path / "a.pth").id, opened(lab, tmp_path / "b.safetensors", "other", 70.0).id}
    assert ids == {lab.teacher.id}


@pytest.mark.parametrize("key", ["fc.bias", "bn1.running_mean"])
def test_one_number_makes_another_teacher(lab, tmp_path, state, key):
    changed = {**state, key: state[key] + 1e-6}
    torch.save(changed, tmp_path / "t.pth")
    assert opened(lab, tmp_path / "t.pth").id != lab.teacher.id


def test_weights_in_half_precision_are_another_teacher(lab, tmp_path, state):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "t.pth")
    half = opened(lab, tmp_path / "t.pth")
    assert half.id != lab.teacher.id
    assert {p.dtype for p in half.net(lab.suite.dataset).parameters()} == {torch.float32}


def test_a_file_that_is_replaced_under_a_running_job_is_refused(lab, tmp_path, state):
    """The rows carry the hash that was taken at the start: they must not be of other weights."""
    path = tmp_path / "t.pth"
    torch.save(state, path)
    teacher = opened(lab, path)
    torch.save({**state, "fc.bias": state["fc.bias"] + 1}, path)
    with pytest.raises(KdbenchError, match=r"t\.pth.*changed"):
        teacher.net(lab.suite.dataset)


def test_the_net_is_frozen_and_in_eval_mode(lab):
    net = lab.teacher.net(lab.suite.dataset)
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())


# --- the network is part of it ---


def tanh(lab, weights, **changes):
    """Two suites whose teachers differ in an activation alone, with the same weights: their inputs."""
    texts = [f'{{ arch = "resnet10t", args = {args} }}' for args in ("{}", '{ act_layer = "tanh" }')]
    before = '{ arch = "resnet8", args = { widths = [8, 8, 8, 16] } }'
    weights.mkdir(exist_ok=True)
    torch.manual_seed(2)
    torch.save(models.create("resnet10t", 4).state_dict(), weights / "teacher.pth")
    return [lab.inputs((before, text), teacher_weights=weights, **changes) for text in texts]


def test_another_activation_is_another_teacher_and_cell(lab, tmp_path):
    one, two = tanh(lab, tmp_path / "given", methods=["kd"])
    assert one.teachers["teacher"].id != two.teachers["teacher"].id
    assert not {cell.id for cell in one.cells()} & {cell.id for cell in two.cells()}


def test_another_activation_has_its_own_logits_and_table(lab, tmp_path):
    keys, found = set(), []
    for inputs in tanh(lab, tmp_path / "given", methods=["kd"]):
        teacher, (cell,) = inputs.teachers["teacher"], inputs.cells()
        net = teacher.net(inputs.workspace.suite.dataset)
        found.append(logits_of(lab, net, teacher=teacher))
        assert torch.equal(found[-1], net(lab.split.evaluation.images.permute(0, 3, 1, 2) / 255).logits)
        keys.add(canonical(table_key(cell, cell.views["weak"], torch.device("cpu"))))
    assert not torch.equal(*found)
    assert len(keys) == 2


def test_a_run_with_another_activation_trains_again(lab, tmp_path):
    tanh(lab, tmp_path / "given")
    rows = []
    for args in ("{}", '{ act_layer = "tanh" }', "{}"):
        suite = lab.suite_file(('resnet8", args = { widths = [8, 8, 8, 16] }', f'resnet10t", args = {args}'))
        usual = {"data_dir": lab.data, "results": tmp_path / "r", "teacher_weights": tmp_path / "given"}
        outcome = run(suite, ["kd"], device="cpu", progress=Progress(), **usual)
        assert outcome.complete
        rows.append(outcome.rows.iloc[0])
    assert rows[0]["cell_id"] == rows[2]["cell_id"] != rows[1]["cell_id"]
    assert rows[0]["run_id"] == rows[2]["run_id"] != rows[1]["run_id"]


def test_the_id_is_the_weights_alone_where_they_tell_all(lab, tmp_path):
    """Ids of teachers without arguments stay what they were; names of one network are one teacher."""
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


def test_what_was_taken_of_a_file_is_said_by_a_run(lab, state, heard):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save({"state_dict": {k: v + 1 for k, v in state.items()}, "ema": state}, folder / "teacher.pth")
    inputs = lab.inputs(teacher_weights=folder)
    assert inputs.teachers["teacher"].id == lab.teacher.id
    announce(inputs.workspace, inputs.teachers["teacher"], heard.say)
    assert (
        heard.said.count(f"{folder / 'teacher.pth'}: the averaged (EMA) weights under 'ema' are taken") == 1
    )


# --- logits, once ---


@pytest.fixture
def counted(lab):
    """The teacher's net and the number of batches it has seen."""
    net = lab.teacher.net(lab.suite.dataset)
    calls = []
    net.register_forward_pre_hook(lambda *args: calls.append(1))
    return net, calls


def logits_of(lab, net, teacher=None, split=None, work=None):
    return teachers.teacher_logits(
        teacher or lab.teacher, net, split or lab.split, work or lab.work, torch.device("cpu")
    )


def test_logits_are_those_of_the_net_on_the_plain_images(lab, counted):
    net, _ = counted
    images = lab.split.evaluation.images.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = net((images), Needs()).logits
    assert torch.equal(logits_of(lab, net), expected)


def test_logits_are_measured_once_and_read_the_same(lab, counted):
    net, calls = counted
    first = logits_of(lab, net)
    seen = len(calls)
    assert seen > 0
    assert torch.equal(logits_of(lab, net), first)
    assert len(calls) == seen


def test_logits_are_kept_by_content(lab, counted, tmp_path):
    """The same weights from another file are the same logits; other weights, images or statistics are not."""
    net, calls = counted
    logits_of(lab, net)
    seen = len(calls)
    moved = dataclasses.replace(lab.teacher, path=tmp_path / "elsewhere.pth", expected=12.0)
    logits_of(lab, net, teacher=moved)
    assert len(calls) == seen
    logits_of(lab, net, teacher=dataclasses.replace(lab.teacher, id="another"))
    logits_of(lab, net, split=dataclasses.replace(lab.split, id="another"))
    net.mean.add_(0.1)
    logits_of(lab, net)
    assert len(calls) == seen + 3


def test_logits_that_cannot_be_kept_are_still_measured(lab, counted, tmp_path):
    net, _ = counted
    (tmp_path / "file").write_text("")
    assert torch.equal(logits_of(lab, net, work=tmp_path / "file"), logits_of(lab, net))


def test_accuracy_is_counted_on_the_evaluation_split(lab):
    found = teachers.measure(lab.teacher, lab.suite.dataset, lab.split, lab.work, torch.device("cpu"))
    net, images = lab.teacher.net(lab.suite.dataset), lab.split.evaluation
    right = 0
    for image, target in zip(images.images, images.targets.tolist(), strict=True):
        with torch.no_grad():
            logits = net(image.permute(2, 0, 1)[None].float() / 255, Needs()).logits
        right += logits.argmax().item() == target
    assert found == pytest.approx(100 * right / len(images.targets), abs=1e-4)


# --- teachers of a selection ---


@pytest.fixture
def heard():
    return Heard()


def never():
    """A stop that never says so."""
    return False


def test_a_teacher_is_trained_once_by_the_suites_teacher_recipe(lab, heard):
    recipe = ("[[pairs]]", "[teacher_recipe]\nepochs = 1\nlr = 0.02\n[[pairs]]")
    workspace = lab.open(recipe)
    assert locate_teacher(workspace, "teacher") is None
    teacher = obtain_teacher(workspace, "teacher", heard, never)
    cell = teacher_cell(workspace, "teacher")
    assert (cell.recipe.epochs, cell.recipe.lr, cell.method, cell.seed) == (1, 0.02, "ce", 0)
    path = trained_path(workspace, "teacher")
    assert path.is_file()
    assert path.parent == lab.folder / "results" / ".work" / "teachers"
    before = path.read_bytes()
    assert lab.inputs(recipe).teachers["teacher"] == teacher
    assert obtain_teacher(workspace, "teacher", heard, never) == teacher
    assert path.read_bytes() == before
    assert heard.said == ["training the teacher teacher for 1 epochs"]
    assert list((lab.folder / "results" / ".work").glob("*.pt")) == []  # the checkpoint is gone


def test_epochs_of_the_command_line_do_not_make_another_teacher(lab):
    usual, short = lab.open(), lab.open(epochs=1)
    assert trained_path(short, "teacher") == trained_path(usual, "teacher")


def test_a_suite_file_that_has_the_name_of_a_shipped_suite_keeps_its_own_teacher_recipe(lab):
    workspace = lab.open(("lr = 0.05", "lr = 0.03"), name="digits")
    assert teacher_cell(workspace, "teacher").recipe == workspace.suite.recipe


def test_weights_of_the_user_go_before_those_trained_here(lab, state):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save(state, folder / "teacher.pth")
    inputs = lab.inputs(teacher_weights=folder)
    assert inputs.teachers["teacher"].path == folder / "teacher.pth"
    assert locate_teacher(inputs.workspace, "teacher").id == lab.teacher.id
    with pytest.raises(KdbenchError, match=r"there is no teacher\.pth"):
        lab.inputs(teacher_weights=lab.data)


@pytest.mark.parametrize(("expected", "warned"), [(99.5, True), (0.0, False)])
def test_a_teacher_below_the_suites_expectation_is_a_loud_warning(lab, state, heard, expected, warned):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save(state, folder / "teacher.pth")
    claim = ("[[pairs]]", f"[teachers.teacher]\ntop1 = {expected}\n[[pairs]]")
    inputs = lab.inputs(claim, teacher_weights=folder)
    top1 = announce(inputs.workspace, inputs.teachers["teacher"], heard.say)
    assert heard.said[:2] == [
        f"teacher teacher is {folder / 'teacher.pth'}",
        f"teacher teacher ({lab.teacher.id}) reaches {top1:.2f} % top-1 on test (expected {expected:.2f})",
    ]
    assert accuracy(inputs.workspace, inputs.teachers["teacher"]) == top1
    assert len(heard.said) == (3 if warned else 2)
    if warned:
        assert (
            f"WARNING: the suite expects 99.50 % of teacher; this teacher is {99.5 - top1:.2f} points"
            in heard.said[2]
        )


def test_a_teacher_that_does_not_fit_the_memory_is_told(lab, monkeypatch):
    def no_memory(job, progress, stop):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("kdbench.runner.teachers.train_cohort", no_memory)
    with pytest.raises(
        KdbenchError, match=r"the teacher teacher does not fit the memory of cpu; .*batch_size"
    ):
        obtain_teacher(lab.open(), "teacher", Progress(), never)


# --- teachers that timm has the weights of ---

TAGGED = ("[[pairs]]", '[teachers.teacher]\ntop1 = 60.0\npretrained = "resnet18.tv_in1k"\n[[pairs]]')


@pytest.fixture
def hub(monkeypatch, spec):
    """timm's hub: a dict tag -> weights; every tag that was asked of it."""
    weights, asked, create = {}, [], timm.create_model

    def answer(name, pretrained=False, **kwargs):
        if not pretrained:
            return create(name, **kwargs)
        asked.append(name)
        if name not in weights:
            raise OSError("We couldn't connect to the hub\nand more lines")
        model = models.create(spec.arch, 4, **spec.args)
        model.load_state_dict(weights[name])
        return model

    monkeypatch.setattr(timm, "create_model", answer)
    return weights, asked


def test_a_teacher_with_a_tag_is_fetched_once_and_never_trained_by_a_run(lab, hub, state, heard):
    weights, asked = hub
    weights["resnet18.tv_in1k"] = state
    workspace = lab.open(TAGGED)
    assert locate_teacher(workspace, "teacher") is None
    found = obtain_teacher(workspace, "teacher", heard, never)
    assert heard.said == ["fetching the teacher teacher: resnet18.tv_in1k from timm"]
    assert (found.id, found.expected) == (lab.teacher.id, 60.0)
    assert found.path.name == "teacher-resnet18.tv_in1k.safetensors"
    assert lab.inputs(TAGGED).teachers["teacher"].id == lab.teacher.id
    assert asked == ["resnet18.tv_in1k"]


def test_off_line_one_sentence_says_what_was_tried_and_the_ways_out(lab, hub):
    with pytest.raises(KdbenchError) as caught:
        obtain_teacher(lab.open(TAGGED), "teacher", Progress(), never)
    text = str(caught.value)
    assert (
        "timm.create_model('resnet18.tv_in1k', pretrained=True) says: We couldn't connect to the hub;" in text
    )
    for way in (
        "kdbench teachers import FILE --name teacher",
        "--teacher-weights",
        "teachers train",
    ):
        assert way in text
    assert "\n" not in text


def test_a_tag_that_timm_does_not_have_is_told_with_the_nearest(lab, hub):
    wrong = (TAGGED[0], TAGGED[1].replace("tv_in1k", "tv_in2k"))
    with pytest.raises(KdbenchError, match=r"'resnet18\.tv_in2k'.*did you mean 'resnet18\.tv_in1k'"):
        obtain_teacher(lab.open(wrong), "teacher", Progress(), never)
    assert hub[1] == []


def test_only_the_user_trains_a_teacher_with_a_tag_and_then_it_goes_before_timms(lab, hub, state):
    hub[0]["resnet18.tv_in1k"] = state
    assert obtain_teacher(lab.open(TAGGED), "teacher", Progress(), never, train=True)
    assert hub[1] == []
    found = lab.inputs(TAGGED).teachers["teacher"]
    assert found.path == trained_path(lab.open(TAGGED), "teacher")
    assert found.id != lab.teacher.id


# --- all teachers of a suite ---

TWO = (
    ("[models]", '[models]\nlarger = { arch = "resnet8", args = { widths = [8, 8, 16, 16] } }'),
    ('student = "student"', 'student = "student"\n[[pairs]]\nteacher = "larger"\nstudent = "student"'),
)
TRAIN = ["teachers", "train", "--suite", "tiny.toml", "--data-dir", "data", "--device", "cpu"]


def kept(lab, results="results"):
    """name -> content of the weights of the teachers that are there."""
    files = (lab.folder / results / ".work" / "teachers").glob("*.safetensors")
    return {f.name.split("-")[0]: f.read_bytes() for f in files if ".logits." not in f.name}


def _command(lab, *options):
    os.chdir(lab.folder)
    torch.set_num_threads(1)
    sys.argv = ["kdbench", *TRAIN, *options]
    main()


def test_both_teachers_are_trained_and_a_killed_command_goes_on_where_it_was(lab, in_child, wait_for):
    lab.suite_file(("epochs = 2", "epochs = 8"), *TWO)
    assert kdbench(*TRAIN, "--results", "whole", cwd=lab.folder).code == 0
    work = lab.folder / "results" / ".work"
    process = in_child(_command, lab)
    wait_for(lambda: list(work.glob("*.pt")), "the first checkpoint")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert kept(lab) == {}
    done = kdbench(*TRAIN, cwd=lab.folder)
    assert done.code == 0
    assert kept(lab) == kept(lab, "whole")
    assert kept(lab).keys() == {"teacher", "larger"}
    assert list(work.glob("*.pt")) == []


def test_a_teacher_that_fails_does_not_cost_the_other(lab):
    def first_fails():
        train = teaching.train_cohort

        def fail(job, progress, stop):
            if job.cells[0].student == "teacher":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return train(job, progress, stop)

        teaching.train_cohort = fail

    lab.suite_file(*TWO)
    done = kdbench(*TRAIN, cwd=lab.folder, before=first_fails)
    assert done.code == 3
    assert "kdbench: the teacher teacher does not fit the memory of cpu" in done.err
    assert kept(lab).keys() == {"larger"}
    assert kdbench(*TRAIN, cwd=lab.folder).code == 0
    assert kept(lab).keys() == {"teacher", "larger"}
