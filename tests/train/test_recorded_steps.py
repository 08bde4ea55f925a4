"""Steps from recordings are the eager ones.

On a CPU bit for bit, with a recorder that overwrites what it returned; on a GPU with CUDA graphs, up to rounding.
"""

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.method import Method, Needs
from kdbench.train import recorded_steps
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from tests.support.loops import After, same
from tests.support.recorders import Counted, Overwriting

RATE = 0.0625  # which fp32 holds exactly: a recorded step has it on the device
KINDS = ("branches", "sequential")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Listener(Progress):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, NEEDS_GPU])])
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The cohort is one graph after one timed step: an epoch has five full batches and a small one."""
    monkeypatch.setattr(recorded_steps, "TIMED", 1)


@pytest.fixture
def short(lab):
    return lab.using(epochs=2, batch_size=12, lr=RATE)


def recorder_of(device):
    return Overwriting() if device == "cpu" else Counted(torch.device(device))


def recorded(lab, cells, device="cpu", kind="branches", recorder=None, work="recorded", **job):
    """Results by name, the recorder and the warnings of a cohort whose steps are recorded."""
    recorder, listener = recorder or recorder_of(device), Listener()
    changes = {"graphs": kind, "work": lab.folder / work, "device": device, **job}
    cohort = Cohort(dataclasses.replace(lab.job(cells), **changes), listener, recorder)
    return by_name(cohort.run(lambda: False)[0]), recorder, listener.warnings


def eager(lab, cells, device="cpu", work="eager", **job):
    changes = {"work": lab.folder / work, "device": device, **job}
    return by_name(train_cohort(dataclasses.replace(lab.job(cells), **changes))[0])


def by_name(results):
    return {str(result.cell): result for result in results}


def assert_equal(expected, fast, device="cpu"):
    assert expected.keys() == fast.keys()
    for name, result in expected.items():
        assert fast[name].row["status"] == result.row["status"], fast[name].row["error"]
        if device == "cpu":
            assert same(fast[name].student, result.student), name
            assert same(fast[name].curves, result.curves), name
        for key, value in result.student.items():
            torch.testing.assert_close(fast[name].student[key], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("student", "methods"),
    [
        (
            "student",
            ("ce", "dkd", "crd", "fitnet"),
        ),  # phases by epoch, an index with a bank, the teacher's maps
        pytest.param("dropper", ("kd", "mlkd", "sskd", "ctkd", "deepkd"), marks=pytest.mark.slow),
    ],
)
def test_a_cohort_of_graphs_is_the_eager_cohort(short, device, kind, student, methods):
    cells = short.cells(*methods, student=student)
    fast, recorder, warnings = recorded(short, cells, device, kind)
    assert_equal(eager(short, cells, device), fast, device)
    assert not warnings
    assert set(recorder.branches) == ({len(methods)} if kind == "branches" else set())


def test_views_have_outputs_of_their_own(short, device):
    """One buffer for both views would give the weak view the teacher of the strong one."""
    cells = short.cells("mlkd", "kd")
    fast, recorder, _ = recorded(short, cells, device, "sequential")
    assert_equal(eager(short, cells, device), fast, device)
    assert len(recorder.recorded) == 2 + 2  # two views and two cells


def test_methods_of_one_view_train_on_two_where_the_recipe_says_so(short, device):
    lab = short.using(train_views=("weak", "strong"))
    cells = lab.cells("kd", "ce")
    assert cells[0].recipe.train_views
    assert_equal(eager(lab, cells, device), recorded(lab, cells, device)[0], device)


def test_mixup_and_averaged_weights_are_recorded_too(lab, device):
    lab = lab.using(epochs=2, batch_size=12, lr=RATE, mixup=0.2, ema=0.9)
    cells = lab.cells("ce", "kd")
    assert_equal(eager(lab, cells, device), recorded(lab, cells, device)[0], device)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_neighbour_closes_nobody_else(short, device, kind):
    """It fails in the second epoch, when all is recorded; it alone read the teacher's stages and the strong view."""

    class Fails(Method):
        needs: ClassVar[Needs] = Needs(views=("weak", "strong"), stages=True)

        def loss(self, batch, student, teacher, modules):
            if batch.epoch > 120 and teacher["strong"].stages:
                raise ValueError("on purpose")
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Fails)
    cells = short.cells("fails", "kd", "ce")
    fast, _, _ = recorded(short, cells, device, kind)
    assert fast.pop("fails").row["status"] == "error"
    assert_equal(eager(short, cells[1:], device), fast, device)


def test_what_waits_stays_eager_and_says_so(short, device):
    recorder = recorder_of(device)

    class Waits(Method):
        needs: ClassVar[Needs] = Needs(views=("weak", "strong"))

        def loss(self, batch, student, teacher, modules):
            recorder.wait(student.logits.detach().sum())
            pull = (student["strong"].logits - teacher["strong"].logits).square().mean()
            return {"ce": cross_entropy(student.logits, batch.target), "pull": pull * min(batch.epoch, 2.0)}

    registry.register(Waits)
    cells = short.cells("kd", "waits", "ce")
    fast, _, warnings = recorded(short, cells, device, recorder=recorder)
    assert_equal(eager(short, cells, device), fast, device)
    assert warnings == ["waits: its steps wait for the device, so that they are not recorded as a graph"]
    assert set(recorder.branches) == {2}


def test_only_what_reads_the_epoch_is_recorded_again(short, device):
    """kd: its cell, the teacher and the cohort once; dkd: its cell and the cohort in each of two epochs."""
    counts = {}
    for name in ("kd", "dkd"):
        _, recorder, _ = recorded(short, short.cells(name), device, work=name)
        counts[name] = len(recorder.recorded)
    assert counts == {"kd": 1 + 1 + 1, "dkd": 1 + 2 + 2}


def test_a_cohort_that_is_no_graph_goes_on_one_by_one(short):
    cells = short.cells("kd", "ce")
    fast, _, warnings = recorded(
        short, cells, recorder=Overwriting(refused=3)
    )  # after the teacher and both cells
    assert_equal(eager(short, cells), fast)
    assert len(warnings) == 1
    assert "replayed one by one" in warnings[0]


def test_a_cell_that_cannot_be_recorded_is_closed_alone(short):
    cells = short.cells("kd", "ce")
    fast, _, _ = recorded(
        short, cells, kind="sequential", recorder=Overwriting(refused=2)
    )  # the teacher and kd
    assert fast.pop("ce").row["error"].endswith("train it without --graphs")
    assert_equal(eager(short, cells[:1]), fast)


def test_a_failing_teacher_closes_those_that_read_it(short, monkeypatch):
    cells, recorder = short.cells("kd", "ce"), Overwriting()
    job = dataclasses.replace(short.job(cells), graphs="branches")
    cohort = Cohort(job, Progress(), recorder)

    def fail(images, needs):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(cohort.shared, "compute", fail)
    kd, ce = cohort.run(lambda: False)[0]
    assert kd.row["error"].startswith("kd failed in the teacher's forward pass: RuntimeError: on purpose")
    assert ce.row["status"] == "ok"


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_uninterrupted(short, device, kind):
    cells = short.cells("kd", "dkd", student="dropper")
    whole = eager(short, cells, device)
    for questions in (4, 8):
        changes = {"graphs": kind, "work": short.folder / f"{questions}", "device": device}
        job = dataclasses.replace(short.job(cells), **changes)
        _, stopped = Cohort(job, Progress(), recorder_of(device)).run(After(questions))
        assert stopped
        results, _ = Cohort(job, Progress(), recorder_of(device)).run(lambda: False)
        assert_equal(whole, by_name(results), device)


def test_the_teachers_cache_is_read_before_the_graph(short, device, tmp_path):
    cells = [dataclasses.replace(cell, teacher_cache="fp16") for cell in short.cells("kd", "dkd")]
    expected = eager(short, cells, device, teacher_cache=tmp_path / "cache")
    fast, recorder, _ = recorded(short, cells, device, teacher_cache=tmp_path / "other")
    assert_equal(expected, fast, device)
    assert recorder.branches


def test_untimed_steps_count_as_the_median_of_timed_ones(short, device):
    cells = short.cells("kd", "ce")
    fast, _, _ = recorded(short, cells, device)
    for result in fast.values():
        # of six steps of an epoch: two eager ones, one replay and the last; then one replay and the last
        assert result.row["timed_steps"] == 4 + 2
        assert result.row["train_s"] > 0
        assert result.row["cohort_s"] > 0
    row = eager(short, cells, device)["kd"].row
    assert row["timed_steps"] == 12
    assert row["train_s"] + row["teacher_s"] < row["cohort_s"]
