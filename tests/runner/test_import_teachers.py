"""Checkpoints of other projects: recognised by their tensors, measured, kept, and what `run` takes from then on."""

import argparse
import tarfile

import numpy as np
import pytest
import torch

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.runner import import_teachers as importing
from kdbench.runner.choose_teachers import remove, use
from kdbench.runner.import_teachers import import_teachers, recognise
from kdbench.runner.inputs import find_inputs
from kdbench.runner.run import resolve
from kdbench.runner.teachers import accuracy, listing, locate_teacher, trained_path
from kdbench.runner.workspace import open_workspace
from kdbench.suites import load
from kdbench.teachers.fitting import parts
from kdbench.teachers.weights import open_teacher
from kdbench.utils.state_dicts import load_weights, save_weights
from tests.support.cli_process import kdbench, line_of
from tests.support.pictures import write_images


@pytest.fixture
def state(lab):
    return lab.teacher.net(lab.suite.dataset).model.state_dict()


def fresh(lab, name="teacher", seed=1):
    torch.manual_seed(seed)
    spec = lab.suite.model(name)
    return models.create(spec.arch, 4, **spec.args).state_dict()


def saved(path, content):
    torch.save(content, path)
    return path


def bring(lab, *files, replaced=(), **options):
    """What was said and what went wrong."""
    said = []
    usual = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu"}
    chosen = resolve(lab.suite_file(*replaced), ["ce"], **usual)
    return said, import_teachers(files, *chosen, said.append, **options)


def shelf_of(lab):
    folder = lab.folder / "results" / ".work" / "teachers"
    return {path.name for path in folder.glob("*.safetensors") if ".logits." not in path.name}


class Evil:
    def __reduce__(self):
        return (print, ("this code ran",))


# --- the file ---


def test_every_form_of_a_checkpoint_is_the_same_teacher(lab, tmp_path, state):
    """RepDistiller saves its arguments, mdistiller a numpy accuracy or its distiller, DataParallel prefixes."""
    extra = {"opt": argparse.Namespace(lr=0.05, model="resnet8"), "epoch": 240, "optimizer": {"state": {}}}
    wrapped, vanilla = (
        {f"{prefix}{k}": v for k, v in state.items()} for prefix in ("module.", "module.student.")
    )
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    files = [
        saved(tmp_path / "plain.pth", state),
        saved(tmp_path / "ckpt_epoch_240.pth", {"model": state, "best_acc": torch.tensor(72.3), **extra}),
        saved(tmp_path / "latest", {"model": wrapped, "best_acc": np.float64(72.3), "acc": np.float32(1)}),
        saved(tmp_path / "best", {"model": vanilla, "epoch": 240}),
        saved(tmp_path / "model_best.pth.tar", {"state_dict": old, "arch": "resnet8"}),
        tmp_path / "t.safetensors",
    ]
    save_weights(files[-1], state)
    said, failures = bring(lab, *files)
    assert failures == []
    assert {line.split(" reaches ")[0] for line in said} == {f"teacher teacher ({lab.teacher.id})"}
    assert len(said) == len(files)
    assert shelf_of(lab) == {f"teacher-{lab.teacher.id}.safetensors"}


def test_a_file_with_code_is_refused_and_not_run(lab, tmp_path, state, capfd):
    files = [
        saved(tmp_path / "a.pth", {"model": state, "opt": Evil()}),
        saved(tmp_path / "b.pth", {"model": state, "opt": argparse.Namespace(x=Evil())}),
    ]
    said, failures = bring(lab, *files)
    assert (said, len(failures)) == ([], 2)
    assert all("holds more than tensors" in failure for failure in failures)
    assert "this code ran" not in capfd.readouterr().out


def test_an_archive_brings_all_that_it_holds(lab, tmp_path, state):
    one, two = (
        saved(tmp_path / "one.pth", {"model": state}),
        saved(tmp_path / "two.pth", fresh(lab, "student")),
    )
    (tmp_path / "readme.txt").write_text("weights")
    with tarfile.open(tmp_path / "all.tar", "w:gz") as archive:
        for path in (one, tmp_path / "readme.txt", two):
            archive.add(path, f"models/{path.stem}_vanilla/{path.name}")
    said, failures = bring(lab, tmp_path / "all.tar")
    assert failures == []
    assert [line.split()[1] for line in said] == ["teacher", "student"]


def test_an_archive_without_weights_and_a_missing_file_are_told(lab, tmp_path):
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    said, failures = bring(lab, tmp_path / "none.tar", tmp_path / "gone.pth")
    assert said == []
    assert failures == [
        f"the archive {tmp_path / 'none.tar'} holds no .pth or .pt or .safetensors file",
        f"there is no weights file {tmp_path / 'gone.pth'}",
    ]


def test_one_bad_file_does_not_cost_the_others(lab, tmp_path, state):
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    said, failures = bring(lab, tmp_path / "torn.pth", saved(tmp_path / "t.pth", state))
    assert len(failures) == 1
    assert "torn.pth" in failures[0]
    assert said[0].startswith(f"teacher teacher ({lab.teacher.id})")


# --- which network it is ---


def known(lab, state, *replaced, arch=None):
    state = state if arch is None else models.create(arch, 4).state_dict()
    return recognise(parts({(): state}), load(str(lab.suite_file(*replaced))), "f.pth")


def test_the_suites_names_go_before_those_of_architectures(lab):
    assert known(lab, fresh(lab, "teacher")) == "teacher"
    assert known(lab, fresh(lab, "student")) == "student"
    own = ("teacher = { arch", 'resnet14 = { arch = "wrn_16_1" }\nteacher = { arch')
    assert (
        known(lab, None, own, ('teacher = "teacher"', 'teacher = "resnet14"'), arch="wrn_16_1") == "resnet14"
    )


@pytest.fixture
def few(monkeypatch):
    """Fewer networks of kdbench's own to be compared with: these are enough for a test."""
    names = ("resnet20", "vgg8", "wrn_16_2", "mobilenetv2", "mobilenetv2_stride1")
    monkeypatch.setattr(importing, "ENTRIES", {name: importing.ENTRIES[name] for name in names})


def test_own_networks_are_recognised_beside_the_suites(lab, few):
    """MobileNetV2 of two strides has one set of tensors: nobody can tell them apart."""
    assert known(lab, None, arch="wrn_16_2") == "wrn_16_2"
    with pytest.raises(KdbenchError, match="fits mobilenetv2 and mobilenetv2_stride1; say which with --name"):
        known(lab, None, arch="mobilenetv2")


def test_timms_networks_are_recognised_unbuilt(lab, few, monkeypatch):
    with torch.device("meta"):
        state = models.create("selecsls60b", 4).state_dict()
    built, create = [], models.create
    monkeypatch.setattr(models, "create", lambda name, *a, **k: built.append(name) or create(name, *a, **k))
    assert known(lab, state) == "selecsls60b"
    timms = [name for name in built if name not in models.ENTRIES]
    assert 0 < len(timms) < 10
    assert all("selecsls" in name for name in timms)


def test_a_file_that_fits_two_asks_for_the_name(lab, tmp_path, state):
    twin = (
        ("teacher = { arch", 'twin = { arch = "resnet8", args = { widths = [8, 8, 8, 16] } }\nteacher = { arch'),
        ('student = "student"', 'student = "student"\n[[pairs]]\nteacher = "twin"\nstudent = "student"'),
    )  # fmt: skip
    file = saved(tmp_path / "t.pth", state)
    said, failures = bring(lab, file, replaced=twin)
    assert (said, failures) == ([], [f"{file} fits teacher and twin; say which with --name teacher"])
    said, failures = bring(lab, file, replaced=twin, name="twin")
    assert said[0].startswith(f"teacher twin ({lab.teacher.id}) reaches")


def test_a_file_that_fits_nothing_names_the_nearest(lab, few):
    vgg = ('arch = "resnet8", args = { widths = [8, 8, 8, 16] }', 'arch = "vgg8"')
    state = models.create("vgg8", 4).state_dict()
    del state["classifier.bias"]
    with pytest.raises(KdbenchError) as caught:
        known(lab, {**state, "classifier.weight": torch.ones(100, 512), "extra": torch.ones(1)}, vgg)
    assert str(caught.value) == (
        "f.pth fits no network that kdbench knows with 4 classes; the nearest is teacher, but the file lacks "
        "classifier.bias, has the unknown extra, differs in shape: classifier.weight is (100, 512) instead of (4, 512)"
    )


def test_a_name_that_does_not_fit_or_is_for_two_files_is_told(lab, tmp_path, state):
    file = saved(tmp_path / "t.pth", state)
    _, (failure,) = bring(lab, file, name="student")
    assert "t.pth does not fit student" in failure
    _, (failure,) = bring(lab, file, name="resnet57")
    assert "unknown model 'resnet57' (neither kdbench's nor timm's); did you mean 'resnet56'?" in failure
    with pytest.raises(KdbenchError, match="--name is the name of one teacher"):
        bring(lab, file, file, name="teacher")


# --- what becomes of it ---


def test_an_imported_teacher_is_what_a_run_takes(lab, tmp_path, state):
    trained = trained_path(lab.open(), "teacher")
    save_weights(trained, fresh(lab, seed=7))
    before = lab.inputs().teachers["teacher"]
    assert before.path == trained
    bring(lab, saved(tmp_path / "a.pth", state))
    first = lab.inputs().teachers["teacher"]
    assert (first.id, first.path.name) == (lab.teacher.id, f"teacher-{lab.teacher.id}.safetensors")
    bring(lab, saved(tmp_path / "b.pth", fresh(lab, seed=2)))
    second = lab.inputs().teachers["teacher"]
    assert second.id not in (first.id, before.id)
    bring(lab, saved(tmp_path / "a.pth", state))  # the older one again
    assert lab.inputs().teachers["teacher"].id == first.id
    bring(lab, trained)  # and the one trained here
    assert lab.inputs().teachers["teacher"].id == before.id
    assert trained.is_file()
    given = tmp_path / "given"
    given.mkdir()
    saved(given / "teacher.pth", fresh(lab, seed=9))
    assert lab.inputs(teacher_weights=given).teachers["teacher"].path == given / "teacher.pth"


def test_an_imported_teacher_serves_all_suites_of_its_data(lab, tmp_path, state):
    bring(lab, saved(tmp_path / "a.pth", state))
    assert lab.inputs(name="another").teachers["teacher"].id == lab.teacher.id
    wider = ("widths = [8, 8, 8, 16]", "widths = [8, 8, 8, 12]")
    assert lab.inputs(wider, name="wider").teachers == {}


def own(lab, where, stream, **options):
    """The inputs of a suite over the folder images that is in ``where``, and what was said."""
    said, file = [], lab.folder / where / "own.toml"
    data = 'folder = "images"\nholdout = 0.25' + ("\nstream = true\nworkers = 0" if stream else "")
    file.write_text(lab.suite_file(('name = "tiny"\nclasses = 4', data)).read_text())
    usual = {"results": lab.folder / "results", "device": "cpu"}
    workspace = open_workspace(*resolve(file, **usual, **options), said.append)
    return find_inputs(workspace, said.append), said


@pytest.mark.parametrize("stream", [False, True])
def test_folders_of_one_name_do_not_share_a_teacher(lab, tmp_path, stream):
    """Parts of the same data go on with it; other images under that name get a warning and their own."""
    cats, dogs = (write_images(lab.folder / where / "images") for where in ("cats", "dogs"))
    next(dogs.glob("train/*/*")).unlink()
    inputs, _ = own(lab, "cats", stream)
    assert inputs.workspace.suite.dataset.classes == 3
    file = saved(tmp_path / "a.pth", models.create("resnet8", 3, widths=[8, 8, 8, 16]).state_dict())
    where = {"results": lab.folder / "results", "device": "cpu"}
    assert import_teachers([file], *resolve(cats.parent / "own.toml", ["ce"], **where), print) == []
    for options in ({}, {"per_class": 2}, {"split": "holdout"}):
        inputs, said = own(lab, "cats", stream, **options)
        assert list(inputs.teachers) == ["teacher"]
        assert not [text for text in said if "imported" in text]
    inputs, said = own(lab, "dogs", stream)
    assert inputs.teachers == {}
    (warning,) = (text for text in said if "imported" in text)
    assert warning.startswith("WARNING: the imported teacher teacher is not used: it was imported for other")
    listed = [(name, used) for name, used, _ in listing(inputs.workspace)]
    assert listed == [("teacher", None)]
    assert import_teachers([file], *resolve(dogs.parent / "own.toml", ["ce"], **where), print) == []
    assert list(own(lab, "dogs", stream)[0].teachers) == list(own(lab, "cats", stream)[0].teachers)


def test_what_is_kept_is_never_overwritten(lab, tmp_path, state):
    file = saved(tmp_path / "a.pth", state)
    bring(lab, file)
    kept = lab.folder / "results" / ".work" / "teachers" / f"teacher-{lab.teacher.id}.safetensors"
    inode = kept.stat().st_ino
    bring(lab, file)
    assert kept.stat().st_ino == inode
    save_weights(kept, fresh(lab, seed=3))
    content = kept.read_bytes()
    _, (failure,) = bring(lab, file)
    assert "holds other weights than its name says" in failure
    assert kept.read_bytes() == content


def test_half_precision_is_kept_as_it_is_used(lab, tmp_path, state):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    bring(lab, saved(tmp_path / "a.pth", half))
    (kept,) = shelf_of(lab)
    stored = load_weights(lab.folder / "results" / ".work" / "teachers" / kept)
    assert stored["fc.weight"].dtype == torch.float32
    opened = open_teacher("teacher", lab.suite.model("teacher"), tmp_path / "a.pth", lab.suite.dataset, None)
    assert lab.inputs().teachers["teacher"].id == opened.id != lab.teacher.id


def test_the_command_tells_accuracy_expectation_and_failures(lab, tmp_path, state):
    claim = ("[[pairs]]", "[teachers.teacher]\ntop1 = 99.5\n[[pairs]]")
    lab.suite_file(claim)
    saved(lab.folder / "t.pth", state)
    (lab.folder / "bad.pth").write_text("no weights")
    where = ["--suite", "tiny.toml", "--data-dir", "data", "--device", "cpu"]
    done = kdbench("teachers", "import", "bad.pth", "t.pth", *where, cwd=lab.folder)
    assert done.code == 1
    first, warning = done.out.splitlines()
    assert first.startswith(f"teacher teacher ({lab.teacher.id}) reaches ")
    assert first.endswith("% top-1 on test (expected 99.50)")
    assert warning.startswith("WARNING: the suite expects 99.50 % of teacher")
    assert line_of(done.err, "kdbench:").startswith("kdbench: bad.pth is not a plain weights file")
    listed = kdbench("teachers", "list", *where, cwd=lab.folder)
    assert [line.split()[:3] for line in listed.out.splitlines()[1:2]] == [["*", "teacher", lab.teacher.id]]
    plan = kdbench("run", *where, "--dry-run", cwd=lab.folder)
    assert f"teacher teacher: {lab.teacher.id}, results/.work/teachers/teacher-{lab.teacher.id}" in plan.out
    assert kdbench("teachers", "import", "t.pth", *where, cwd=lab.folder).code == 0


# --- which one is used ---


def test_a_worse_import_does_not_replace_a_better_teacher(lab, tmp_path):
    """One trained here, then a file of random weights, then a better one: each is taken only where it reaches more."""
    chosen = resolve(
        lab.suite_file(), ["ce"], data_dir=lab.data, results=lab.folder / "results", device="cpu"
    )
    workspace = open_workspace(*chosen, print)
    states = {seed: fresh(lab, seed=seed) for seed in range(1, 9)}
    reached = {}
    for seed, state in states.items():
        file = tmp_path / f"{seed}.safetensors"
        save_weights(file, state)
        teacher = open_teacher("teacher", lab.suite.model("teacher"), file, lab.suite.dataset, None)
        reached[seed] = accuracy(workspace, teacher)
    worst, best = (choose(reached, key=reached.get) for choose in (min, max))
    assert reached[worst] < reached[best]
    save_weights(trained_path(workspace, "teacher"), states[best])
    trained = locate_teacher(workspace, "teacher")
    said, _ = bring(lab, tmp_path / f"{worst}.safetensors")
    assert said[-1].startswith(f"WARNING: teacher stays {trained.id}, which reaches {reached[best]:.2f} %")
    assert locate_teacher(workspace, "teacher").id == trained.id
    hint = said[-1].partition("`")[2].partition("`")[0].split()
    assert hint[:4] == ["kdbench", "teachers", "use", "teacher"]
    assert use(workspace, "teacher", hint[4][:6]).startswith(f"teacher is {hint[4]} from here on")
    assert locate_teacher(workspace, "teacher").id == hint[4] != trained.id
    assert remove(workspace, "teacher", hint[4]).endswith(f"(the file stays); {trained.path} is")
    assert locate_teacher(workspace, "teacher").id == trained.id
    said, _ = bring(lab, tmp_path / f"{best}.safetensors")
    assert not any("stays" in line for line in said)


def test_an_import_whose_file_is_gone_can_be_removed(lab, tmp_path, state):
    bring(lab, saved(tmp_path / "t.pth", state))
    (file,) = shelf_of(lab)
    (lab.folder / "results" / ".work" / "teachers" / file).unlink()
    workspace = lab.open(results=lab.folder / "results")
    with pytest.raises(KdbenchError, match="`kdbench teachers remove teacher`"):
        locate_teacher(workspace, "teacher")
    assert remove(workspace, "teacher").endswith("the next run trains or fetches one")
    assert locate_teacher(workspace, "teacher") is None
    with pytest.raises(KdbenchError, match="no import of the teacher teacher for this data"):
        remove(workspace, "teacher")
    with pytest.raises(KdbenchError, match=r"no hashes of the teacher teacher begin with 'abc'; .*: none"):
        use(workspace, "teacher", "abc")
