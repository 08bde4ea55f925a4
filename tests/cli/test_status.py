"""What status, suites and teachers tell: the facts must be the files' own."""

import os
import signal

import numpy as np
import pytest
import torch

from kdbench import models, registry, suites
from kdbench.cli import status
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner.teachers import trained_path
from kdbench.teachers import catalog
from kdbench.utils import locks
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.text import grid
from tests.support.scenarios import hex12, run


def rows(results, *known, suite="digits"):
    blank = {
        "suite": suite, "dataset": suite, "pair": (None, "s"), "top1": 50.0, "recipe_id": None, "epochs_done": None,
    }  # fmt: skip
    store.append(results / f"{suite}.csv", [run(**blank | row) for row in known])


def line_of(text, start):
    found = [line for line in text.splitlines() if line.startswith(start)]
    assert len(found) == 1, (start, text)
    return found[0]


# --- status ---


def test_status_counts_cells_not_attempts(tmp_path):
    rows(
        tmp_path,
        {"cell_id": "a", "status": "error", "error": "first try"},
        {"cell_id": "a", "status": "ok"},
        {"cell_id": "b", "status": "ok"},
        {"cell_id": "b", "status": "interrupted"},
        {"cell_id": "c", "status": "diverged", "teacher": "t", "seed": 2, "error": "the loss became nan"},
        {"cell_id": "d", "status": "skipped", "error": "no stages"},
        {"cell_id": "e", "status": "oom", "method": "dkd"},
    )
    text = status.status(tmp_path)
    assert line_of(text, "digits:") == "digits: 1 diverged, 2 ok, 1 oom, 1 skipped"
    assert line_of(text, "  of the suite") == "  of the suite's own 18 cells: 0 done, 18 missing"
    assert line_of(text, "  diverged") == "  diverged  kd, t -> s, seed 2: the loss became nan"
    assert line_of(text, "  oom") == "  oom  dkd, s, seed 0"
    assert "first try" not in text
    assert "  skipped" not in text


def test_status_has_a_line_for_every_suite(tmp_path):
    rows(tmp_path, {"cell_id": "a", "status": "ok"})
    rows(tmp_path, {"cell_id": "b", "status": "ok"}, {"cell_id": "c", "status": "ok"}, suite="cifar100")
    rows(tmp_path, {"cell_id": "d", "status": "ok"}, suite="mine")
    lines = [line for line in status.status(tmp_path).splitlines() if not line.startswith(" ")]
    assert lines == ["cifar100: 2 ok", "digits: 1 ok", "mine: 1 ok"]


def test_status_counts_what_the_suite_itself_still_lacks(tmp_path, scratch_registry):
    """Its methods x pairs x seeds on the test split by its recipe; a run without a teacher counts once a student."""
    suite = suites.load("cifar100")
    own = {
        "student": "resnet20", "recipe_id": suite.recipe.id, "split": "test", "default": True,
        "status": "ok", "teacher": "resnet56",
    }  # fmt: skip
    other = {"cell_id": "x", "recipe_id": hex12("quick"), "status": "ok"}
    rows(
        tmp_path,
        own | {"cell_id": "a"},
        own | {"cell_id": "b", "method": "ce", "teacher": None},
        own | {"cell_id": "c", "method": "dkd", "status": "error"},
        own | {"cell_id": "d", "split": "holdout"},
        own | {"cell_id": "e", "seed": 9},
        own | {"cell_id": "f", "default": False},
        own | other,
        suite="cifar100",
    )
    students = {pair.student for pair in suite.pairs}
    alone = len([m for m in suite.methods if not registry.get(m).needs.teacher])
    total = len(suite.seeds) * (alone * len(students) + (len(suite.methods) - alone) * len(suite.pairs))
    found = store.records(store.read(tmp_path / "cifar100.csv"))
    assert status.own_cells(suite, found) == (total, 2)
    assert f"own {total} cells: 2 done, {total - 2} missing" in status.status(tmp_path)


def test_status_keeps_to_80_columns(tmp_path):
    reason = (
        "kd failed in a training step: ValueError: " + "a long reason " * 20 + "(traceback in /a/path.txt)"
    )
    rows(tmp_path, {"cell_id": "a", "status": "error", "error": reason})
    text = status.status(tmp_path)
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(reason.split()) in " ".join(text.split())


def test_status_without_results_says_where_it_looked(tmp_path):
    assert status.status(tmp_path / "none") == f"no results in {tmp_path / 'none'}"


def _hold(folder, ready):
    with locks.held(folder, ["a", "b"]):
        ready.write_text("")
        signal.pause()


def test_status_tells_what_a_live_process_trains(tmp_path, in_child, wait_for):
    process = in_child(_hold, tmp_path / ".work" / "locks", tmp_path / "ready")
    wait_for((tmp_path / "ready").exists)
    line = line_of(status.status(tmp_path), "running")
    assert line.startswith(f"running: 2 cells in process {process.pid} on {os.uname().nodename}")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert "running" not in status.status(tmp_path)


def test_status_refuses_a_foreign_file(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(KdbenchError, match=r"mine\.csv has another header"):
        status.status(tmp_path)


# --- suites ---


def test_suites_lists_each_with_its_description():
    text = status.suites_list()
    assert max(map(len, text.splitlines())) <= 80
    told = " ".join(text.split())
    for name in suites.names():
        assert f"{name} {suites.load(name).description}" in told


def test_one_suite_shows_recipe_models_and_pairs(lab):
    """Sizes by the literature's tables: resnet56 has 861,620 parameters at 100 classes, and 125.8 M MACs."""
    file = lab.suite_file(
        ("classes = 4", "classes = 100"),
        ("size = 8", "size = 32"),
        ("[[pairs]]", '[teachers.resnet56]\ntop1 = 72.34\npretrained = "some.tag"\n[[pairs]]'),
        ('teacher = "teacher"', 'teacher = "resnet56"'),
        ('student = "student"', 'student = "student"\nparams = { dkd = { beta = 2.0 } }'),
    )
    text = status.suite(str(file), lab.folder)
    assert line_of(text, "epochs ").split() == ["epochs", "2"]
    assert line_of(text, "milestones ").split(maxsplit=1)[1] == "(150, 180, 210)"
    assert line_of(text, "weight_decay ").split() == ["weight_decay", "0.0005"]
    assert line_of(text, "view weak ").split() == ["view", "weak", "pad=1", "flip=True"]
    assert "peak" not in text  # of the other schedule
    assert line_of(text, "resnet56 ").split() == [
        "resnet56", "861,620", "125.8", "M", "72.34", "weights", "some.tag",
    ]  # fmt: skip
    student = line_of(text, "student ").split()
    assert student[4:] == ["–", "resnet8", "widths=[4,", "4,", "8,", "8]"]
    pair = "resnet56:student"
    assert line_of(text, pair).split() == [pair, "dkd.beta=2.0"]
    assert "data tiny: 100 classes, 32 px, holdout 0.1 of train; data not at hand" in " ".join(text.split())


def test_a_suite_file_is_shown_with_its_pairs_own_recipe(lab):
    file = lab.suite_file(
        ('student = "student"', 'student = "student"\nrecipe = { lr = 0.01 }'),
        ("[[pairs]]", "[teacher_recipe]\nlr = 0.03\n[[pairs]]"),
    )
    text = status.suite(str(file), lab.data)
    assert text.startswith("tiny: 64 images")
    assert "lr=0.01" in line_of(text, "teacher:student")
    assert line_of(text, "teachers ").split(maxsplit=1)[1] == "trained with lr=0.03"
    assert "64 train and 24 test images, 0 of the test images are in train too" in " ".join(text.split())


def test_test_images_that_are_in_train_too_are_counted(lab):
    arrays = dict(np.load(lab.data / "tiny.npz"))
    arrays["x_test"][3] = arrays["x_train"][5]
    arrays["x_test"][7] = arrays["x_train"][9]
    (lab.folder / "own").mkdir()
    np.savez(lab.folder / "own" / "tiny.npz", **arrays)
    text = status.suite(str(lab.suite_file()), lab.folder / "own")
    assert ", 2 of the test images are in train too, pixel for pixel" in " ".join(text.split())


def test_a_suite_of_unknown_size_is_measured_where_its_data_is_at_hand(lab):
    file = lab.suite_file(("classes = 4\n", ""), ("size = 8\n", ""))
    text = status.suite(str(file), lab.data)
    assert "data tiny: 4 classes, 8 px" in " ".join(text.split())
    assert line_of(text, "teacher  ").split()[0] == "teacher"
    text = status.suite(str(file), lab.folder)
    assert "data tiny: ? classes, ? px" in " ".join(text.split())
    assert "MACs" not in text


@pytest.mark.parametrize("name", suites.names())
def test_no_data_is_fetched_for_a_look_at_a_suite(monkeypatch, tmp_path, name):
    """And every shipped suite is readable on 80 columns."""

    create = models.create

    def refuse(*args, **kwargs):
        raise AssertionError("something would be downloaded")

    def without_memory(*args, **kwargs):
        with torch.device("meta"):
            return create(*args, **kwargs)

    monkeypatch.setattr("kdbench.data.sources.fetch", refuse)
    monkeypatch.setattr("kdbench.models.macs", lambda model, size: 10**9)  # only the text counts here
    monkeypatch.setattr("kdbench.models.create", without_memory)
    text = status.suite(name, tmp_path)
    assert max(map(len, text.splitlines())) <= 80
    assert ("data not at hand" in " ".join(text.split())) == (name != "digits")


# --- teachers ---


def test_teachers_lists_hash_accuracy_and_file(lab):
    given = lab.folder / "given"
    given.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), given / "teacher.pth")
    claim = ("[[pairs]]", "[teachers.teacher]\ntop1 = 60.0\n[[pairs]]")
    options = {
        "suite": str(lab.suite_file(claim)), "data_dir": lab.data, "results": lab.folder / "r", "device": "cpu",
    }  # fmt: skip
    head, line, way, _ = status.teachers(options).splitlines()
    assert head.split() == ["teacher", "hash", "top-1", "expected"]
    assert line.split() == ["teacher", "–", "–", "60.00"]
    assert way.strip() == "not here yet: kdbench teachers train, or import FILE"
    _, line, file, last = status.teachers({**options, "teacher_weights": given}).splitlines()
    star, name, hashed, top1, expected = line.split()
    assert (star, name, hashed, expected) == ("*", "teacher", lab.teacher.id, "60.00")
    assert file == f"     {given / 'teacher.pth'}"
    assert 0 <= float(top1) <= 100
    assert last == "* is what `kdbench run` takes"


def test_teachers_lists_what_was_imported_beside_what_a_run_takes(lab):
    """One that is no teacher of the suite too, and the one trained here that an import has replaced."""
    folder = lab.folder / "r"
    workspace = lab.open(results=folder)
    spec = lab.suite.models
    weights = {
        name: models.create(spec[name].arch, 4, **spec[name].args).state_dict()
        for name in ("teacher", "student")
    }
    save_weights(trained_path(workspace, "teacher"), weights["teacher"])
    for name, state in (
        ("teacher", lab.teacher.net(lab.suite.dataset).model.state_dict()),
        ("student", weights["student"]),
    ):
        path = catalog.folder(workspace.paths.work) / f"{name}-imported.safetensors"
        save_weights(path, state)
        catalog.choose(workspace.paths.work, "tiny", name, spec[name], path, workspace.data_id)
    options = {"suite": str(lab.suite_file()), "data_dir": lab.data, "results": folder, "device": "cpu"}
    lines = status.teachers(options).splitlines()[1:-1]
    assert [line.split()[:2] for line in lines[0::2] if line[0] == "*"] == [
        ["*", "teacher"],
        ["*", "student"],
    ]
    assert [line.split()[0] for line in lines[0::2] if line[0] != "*"] == ["teacher"]
    assert [file.strip().rsplit("/")[-1] for file in lines[1::2]] == [
        "teacher-imported.safetensors", trained_path(workspace, "teacher").name, "student-imported.safetensors",
    ]  # fmt: skip


# --- text ---


def test_a_grid_is_left_aligned_two_spaces_apart():
    assert grid([("a", 10), ("bcd", 2)]) == "a    10\nbcd  2"


def test_a_grid_folds_its_last_column():
    text = grid([("a", "one two three four"), ("bcd", "five")], width=28)
    assert text == "a    one two three four\nbcd  five"
    text = grid([("a" * 10, "one two three four five"), ("b", "-")], width=32)
    assert text == f"{'a' * 10}  one two three four\n{' ' * 12}five\nb           -"
