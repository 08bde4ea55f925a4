"""Teachers of a selection: trained once, the user's own first, announced with what they reach."""

import os
import signal
import sys

import pytest
import torch

from kdbench.cli.main import main
from kdbench.errors import KdbenchError
from kdbench.runner.executors import base
from kdbench.runner.teachers import (
    accuracy,
    announce,
    locate_teacher,
    teacher_cell,
    trained_path,
)
from kdbench.runner.train_teachers import obtain_teachers
from kdbench.train.callbacks import Progress
from tests.support.cli_process import kdbench
from tests.support.heard import Heard, never, throw

TWO = (
    ("[models]", '[models]\nlarger = { arch = "resnet8", args = { widths = [8, 8, 16, 16] } }'),
    ('student = "student"', 'student = "student"\n[[pairs]]\nteacher = "larger"\nstudent = "student"'),
)
TRAIN = ["teachers", "train", "--suite", "tiny.toml", "--data-dir", "data", "--device", "cpu"]


def test_a_teacher_is_trained_once_by_the_suites_teacher_recipe(lab):
    recipe = ("[[pairs]]", "[teacher_recipe]\nepochs = 1\nlr = 0.02\n[[pairs]]")
    workspace, heard = lab.open(recipe), Heard()
    assert locate_teacher(workspace, "teacher") is None
    teacher = obtain_teachers(workspace, heard, never, throw)["teacher"]
    cell = teacher_cell(workspace, "teacher")
    assert (cell.recipe.epochs, cell.recipe.lr, cell.method, cell.seed) == (1, 0.02, "ce", 0)
    path = trained_path(workspace, "teacher")
    assert path.is_file()
    assert path.parent == lab.folder / "results" / ".work" / "teachers"
    before = path.read_bytes()
    assert lab.inputs(recipe).teachers["teacher"] == teacher
    assert obtain_teachers(workspace, heard, never, throw) == {"teacher": teacher}
    assert path.read_bytes() == before
    assert heard.said == ["training the teacher teacher for 1 epochs"]
    assert list((lab.folder / "results" / ".work").glob("*.pt")) == []  # the checkpoint is gone


def test_epochs_of_the_command_line_do_not_make_another_teacher(lab):
    usual, short = lab.open(), lab.open(epochs=1)
    assert trained_path(short, "teacher") == trained_path(usual, "teacher")


def test_a_suite_named_like_a_shipped_one_has_its_own_recipe(lab):
    workspace = lab.open(("lr = 0.05", "lr = 0.03"), name="digits")
    assert teacher_cell(workspace, "teacher").recipe == workspace.suite.recipe


def test_the_users_weights_go_before_those_trained_here(lab, teacher_state):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save(teacher_state, folder / "teacher.pth")
    inputs = lab.inputs(teacher_weights=folder)
    assert inputs.teachers["teacher"].path == folder / "teacher.pth"
    assert locate_teacher(inputs.workspace, "teacher").id == lab.teacher.id
    with pytest.raises(KdbenchError, match=r"there is no teacher\.pth"):
        lab.inputs(teacher_weights=lab.data)


@pytest.mark.parametrize(("expected", "warned"), [(99.5, True), (0.0, False)])
def test_a_teacher_weaker_than_expected_is_a_warning(lab, teacher_state, messages, expected, warned):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save(teacher_state, folder / "teacher.pth")
    claim = ("[[pairs]]", f"[teachers.teacher]\ntop1 = {expected}\n[[pairs]]")
    inputs = lab.inputs(claim, teacher_weights=folder)
    top1 = announce(inputs.workspace, inputs.teachers["teacher"], messages.append)
    assert messages[:2] == [
        f"teacher teacher is {folder / 'teacher.pth'}",
        f"teacher teacher ({lab.teacher.id}) reaches {top1:.2f} % top-1 on test (expected {expected:.2f})",
    ]
    assert accuracy(inputs.workspace, inputs.teachers["teacher"]) == top1
    assert len(messages) == (3 if warned else 2)
    if warned:
        assert (
            f"WARNING: the suite expects 99.50 % of teacher; this teacher is {99.5 - top1:.2f} points"
            in messages[2]
        )


def test_a_teacher_that_exceeds_the_memory_is_an_error(lab, monkeypatch):
    def no_memory(job, progress, stop):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("kdbench.runner.executors.base.train_cohort", no_memory)
    with pytest.raises(
        KdbenchError, match=r"the teacher teacher does not fit the memory of cpu; .*batch_size"
    ):
        obtain_teachers(lab.open(), Progress(), never, throw)


def test_a_run_says_which_weights_of_a_file_are_used(lab, teacher_state, messages):
    folder = lab.folder / "given"
    folder.mkdir()
    torch.save(
        {"state_dict": {k: v + 1 for k, v in teacher_state.items()}, "ema": teacher_state},
        folder / "teacher.pth",
    )
    inputs = lab.inputs(teacher_weights=folder)
    assert inputs.teachers["teacher"].id == lab.teacher.id
    announce(inputs.workspace, inputs.teachers["teacher"], messages.append)
    assert f"{folder / 'teacher.pth'}: the averaged (EMA) weights under 'ema' are used" in messages


def saved(lab, results="results"):
    """Map each trained teacher to the bytes of its weights."""
    files = (lab.folder / results / ".work" / "teachers").glob("*.safetensors")
    return {f.name.split("-")[0]: f.read_bytes() for f in files if ".logits." not in f.name}


def _command(lab, *options):
    os.chdir(lab.folder)
    torch.set_num_threads(1)
    sys.argv = ["kdbench", *TRAIN, *options]
    main()


def test_a_killed_training_of_two_teachers_continues(lab, in_child, wait_for):
    lab.suite_file(("epochs = 2", "epochs = 8"), *TWO)
    assert kdbench(*TRAIN, "--results", "whole", cwd=lab.folder).code == 0
    work = lab.folder / "results" / ".work"
    process = in_child(_command, lab)
    wait_for(lambda: list(work.glob("*.pt")), "the first checkpoint")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert saved(lab) == {}
    done = kdbench(*TRAIN, cwd=lab.folder)
    assert done.code == 0
    assert saved(lab) == saved(lab, "whole")
    assert saved(lab).keys() == {"teacher", "larger"}
    assert list(work.glob("*.pt")) == []


def test_a_teacher_that_fails_does_not_stop_the_other(lab):
    def first_fails():
        train = base.train_cohort

        def fail(job, progress, stop):
            if job.cells[0].student == "teacher":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return train(job, progress, stop)

        base.train_cohort = fail

    lab.suite_file(*TWO)
    done = kdbench(*TRAIN, cwd=lab.folder, before=first_fails)
    assert done.code == 3
    assert "kdbench: the teacher teacher does not fit the memory of cpu" in done.err
    assert saved(lab).keys() == {"larger"}
    assert kdbench(*TRAIN, cwd=lab.folder).code == 0
    assert saved(lab).keys() == {"teacher", "larger"}


@pytest.mark.slow
def test_two_processes_train_two_teachers_side_by_side(lab):
    lab.suite_file(*TWO)
    assert kdbench(*TRAIN, "--results", "alone", cwd=lab.folder).code == 0
    done = kdbench(*TRAIN, "--jobs", "2", cwd=lab.folder)
    assert done.code == 0, done.err
    assert saved(lab) == saved(lab, "alone")
    assert saved(lab).keys() == {"teacher", "larger"}
    assert list((lab.folder / "results" / ".work").glob("*.pt")) == []


def test_a_run_trains_all_teachers_before_its_cells(lab):
    lab.suite_file(*TWO)
    done = kdbench(
        "run", "--suite=tiny.toml", "--data-dir=data", "--methods=kd", "--device=cpu", cwd=lab.folder
    )
    assert done.code == 0, done.err
    assert saved(lab).keys() == {"teacher", "larger"}
    said = [line for line in done.err.splitlines() if "training the teacher" in line or "reaches" in line]
    assert ["training" in line for line in said] == [True, True, False, False]


def test_the_command_trains_the_teachers_of_some_pairs_alone(lab):
    lab.suite_file(*TWO)
    done = kdbench(*TRAIN, "--pairs", "larger:student", cwd=lab.folder)
    assert done.code == 0, done.err
    assert saved(lab).keys() == {"larger"}


def test_a_teacher_that_another_process_trains_is_waited_for(lab, in_child, wait_for):
    lab.suite_file(("epochs = 2", "epochs = 20"))
    folder = lab.folder / "results" / ".work"
    other = in_child(_command, lab)
    wait_for(lambda: list(folder.glob("*.pt")), "the first checkpoint")
    done = kdbench(*TRAIN, cwd=lab.folder)
    other.join()
    assert (done.code, other.exitcode) == (0, 0)
    assert saved(lab).keys() == {"teacher"}
    assert list((folder / "locks").glob("*.lock")) == []
