"""The cohort loop stopped, killed, typed again and sent elsewhere: the numbers are those of an uninterrupted run."""

import copy
import dataclasses
import pickle
import threading
import time
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.contract.toy_suite import Steps
from kdbench.method import Method, Needs
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress
from kdbench.train.checkpoint import checkpoint_path, resumable
from kdbench.train.cohort import train_cohort
from tests.support.loops import After, same, state_of

STEPS = 4  # of an epoch of 64 images

# --- stop, kill, resume ---


@pytest.fixture
def memory(lab):
    """A method with everything that must survive: a parameter, a bank, a prepared mean, both random streams."""
    prepared = []

    class Bank(nn.Module):
        def __init__(self, context):
            super().__init__()
            self.projector = nn.Linear(4, 4)
            self.register_buffer("bank", torch.zeros(context.train_size, 4))
            self.register_buffer("mean", torch.zeros(4))

    class Memory(Method):
        needs: ClassVar[Needs] = Needs(index=True)

        def build(self, context):
            return Bank(context)

        def prepare(self, context, teacher_batches, modules):
            prepared.append(self.name)
            modules.mean += torch.cat([teacher.logits for _, teacher in teacher_batches]).mean(0)

        def loss(self, batch, student, teacher, modules):
            noise = torch.rand(4, generator=batch.generator) + torch.rand(4)
            pull = (
                modules.projector(student.logits) - modules.bank[batch.index] - modules.mean - noise
            ).square()
            ce = cross_entropy(student.logits, batch.target)
            return {"ce": ce, "pull": 0.01 * pull.mean(), "_logits": student.logits}

        def update(self, batch, student, teacher, modules, terms):
            modules.bank[batch.index] = 0.5 * modules.bank[batch.index] + terms["_logits"]

    registry.register(Memory)
    return prepared


NAMES = ("kd", "memory")


def test_stopped_and_resumed_is_uninterrupted(lab, memory):
    """Weights, momentum, modules, curves, sums, random streams: bit for bit, from anywhere in an epoch.

    4 steps an epoch and a question before each step and after the last: five an epoch.
    """
    cells = lab.cells(*NAMES, student="dropper")
    whole = lab.run(cells)
    for questions, position in ((0, (0, 0)), (2, (0, 2)), (4, (1, 0)), (8, (1, 3))):
        memory.clear()
        other = lab.using(work=f"stopped{questions}")
        results, stopped = train_cohort(other.job(cells), stop=After(questions))
        assert stopped
        assert [r.row["status"] for r in results] == ["interrupted"] * 2
        assert [r.row["epochs_done"] for r in results] == [position[0]] * 2
        assert all(r.student == {} for r in results)
        states = [state_of(other, cell) for cell in cells]
        assert {(state["epoch"], state["step"]) for state in states} == {position}
        resumed, stopped = train_cohort(other.job(cells))
        assert not stopped
        assert memory == ["memory"]  # prepared once, not at every start
        for result, cell in zip(resumed, cells, strict=True):
            name = str(cell)
            assert same(result.student, whole[name].student), name
            assert same(result.curves, whole[name].curves), name
            assert (result.details["confusion"] == whole[name].details["confusion"]).all()
            assert same(state_of(other, cell), state_of(lab, cell)), name


class Slow(Progress):
    def step(self, images):
        time.sleep(0.01)


def test_killed_and_typed_again_is_uninterrupted(lab, memory, in_child, wait_for):
    """kill -9 in the second epoch: at most the epoch in flight is lost, and the numbers are the same."""
    lab = lab.using(epochs=3)
    cells = lab.cells(*NAMES)
    whole = lab.run(cells)
    other = lab.using(work="killed")
    child = in_child(train_cohort, other.job(cells), Slow())
    wait_for(lambda: all(checkpoint_path(other.work, cell.id).exists() for cell in cells))
    child.kill()
    child.join()
    assert child.exitcode == -9
    assert {state_of(other, cell)["epoch"] for cell in cells} <= {1, 2}
    resumed = other.run(cells)
    for name in NAMES:
        assert same(resumed[name].student, whole[name].student)
        assert same(resumed[name].curves, whole[name].curves)


def test_a_finished_cell_without_a_row_is_only_measured(lab):
    cells = lab.cells("kd")
    whole = lab.run(cells)["kd"]
    before = time.monotonic()
    again = lab.run(cells)["kd"]
    assert same(again.student, whole.student)
    assert again.row["train_s"] == whole.row["train_s"] < time.monotonic() - before + whole.row["train_s"]
    for key in ("status", "top1", "nll", "ece", "kl_teacher", "train_top1", "top1_best", "epochs_done"):
        assert again.row[key] == whole.row[key]


def test_checkpoints_are_a_minute_apart(lab, monkeypatch):
    """After the first epoch, when a minute is over, and where the training ends or stops."""
    lab, clock, saved = lab.using(epochs=6), [0.0], []
    (cell,) = lab.cells("kd")
    monkeypatch.setattr("kdbench.train.checkpoint.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "save_state", lambda path, state: saved.append(state["epoch"]))

    class Clock(Progress):
        def epoch(self, epoch, measured):
            clock[0] += 25

    train_cohort(lab.job([cell]), Clock())
    assert saved == [1, 4, 6]
    saved.clear()
    _, stopped = train_cohort(lab.job([cell]), Clock(), After(9))  # behind the second epoch
    assert stopped
    assert saved == [1, 2]


def test_a_save_copies_what_training_changes_meanwhile(lab, monkeypatch):
    (cell,), written = lab.cells("kd"), threading.Event()
    save = checkpoint.save_state

    def slow(path, state):
        assert written.wait(10)
        save(path, state)

    monkeypatch.setattr(checkpoint, "save_state", slow)
    saver = checkpoint.Saver(lab.work, 60.0, warn=pytest.fail)
    state = {"epoch": 1, "net": nn.Linear(2, 2).state_dict(), "curves": [(1, "loss", 0.5)], "step": 0}
    state |= {"cell_id": cell.id, "code": registry.code_hash("kd")}
    before = copy.deepcopy(state)
    saver.save([(cell, state)])
    assert not saver.is_due
    state["net"]["weight"].zero_()
    state["curves"].append((2, "loss", 0.25))
    written.set()
    saver.finish()
    there = resumable(lab.work, cell)
    assert same(there, before)
    assert there["net"]._metadata == before["net"]._metadata


def test_a_job_of_cells_at_different_positions_trains_each_from_its_own(lab):
    """As one that a cluster queues again after one of its cells had failed: nobody has regrouped it."""
    failing = [True]

    class Once(Method):
        needs: ClassVar[Needs] = Needs(teacher=False)

        def loss(self, batch, student, teacher, modules):
            if failing[0] and batch.epoch >= 120:  # in the middle
                raise RuntimeError("on purpose")
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Once)
    recipe = {"epochs": 8, "reference_epochs": 240}
    failing[0] = False
    whole = lab.using(work="whole", **recipe).train("once", "ce")
    failing[0] = True
    there = lab.using(work="again", **recipe)
    job = dataclasses.replace(there.job(there.cells("ce", "once")), save_every=0.0)
    steps = Steps()
    results, stopped = train_cohort(job, steps, lambda: steps.done >= 6 * STEPS + 2)
    assert stopped
    rows = {result.cell.method: result.row for result in results}
    assert (rows["ce"]["status"], rows["ce"]["epochs_done"]) == ("interrupted", 6)
    assert (rows["once"]["status"], rows["once"]["epochs_done"]) == ("error", 3)
    failing[0] = False
    again, stopped = train_cohort(job)
    assert not stopped
    for result in again:
        assert result.row["status"] == "ok"
        assert result.row["final_loss"] == whole[result.cell.method].row["final_loss"]
        assert same(result.student, whole[result.cell.method].student)


def test_a_checkpoint_of_another_kind_of_device_continues(lab):
    """A GPU's has the states of two global generators, which ended the cell with an error whenever it was tried."""
    cells, warned = lab.cells("kd", "ce"), []
    train_cohort(lab.job(cells), stop=After(6))
    path = checkpoint_path(lab.work, cells[0].id)
    state = torch.load(path, weights_only=True)
    state["streams"] = {
        "global": [*state["streams"]["global"], torch.zeros(16, dtype=torch.uint8)],
        "own": None,
    }
    for group in state["optimizer"]["param_groups"]:
        group["lr"] = torch.tensor(0.05)  # of recorded steps
    torch.save(state, path)

    class Listener(Progress):
        def warn(self, text):
            warned.append(text)

    results, _ = train_cohort(lab.job(cells), Listener())
    assert [result.row["status"] for result in results] == ["ok", "ok"]
    assert warned == [
        "kd: continues on cpu from a checkpoint of another kind of device; its numbers are those of neither alone"
    ]
    whole = lab.using(work="whole").run(cells)
    assert all(
        same(result.student, whole[str(result.cell)].student) for result in results
    )  # nothing here draws


def test_a_checkpoint_of_another_number_of_threads_says_so_in_the_row(lab, monkeypatch):
    """Sums in another order: neither the bits of one nor of the other."""
    cells, warned = lab.cells("kd", "ce"), []

    class Listener(Progress):
        def warn(self, text):
            warned.append(text)

    train_cohort(lab.job(cells), stop=After(6))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    train_cohort(lab.job(cells), Listener(), stop=After(2))
    results, _ = train_cohort(lab.job(cells), Listener())
    said = "continues on cpu from a checkpoint of other threads (1, here 4); its numbers are those of neither alone"
    assert sorted(warned) == [f"ce: {said}", f"kd: {said}"]
    assert [result.row["deterministic"] for result in results] == [False, False]
    (alone,) = lab.using(work="alone").run(cells[:1]).values()
    assert "deterministic" not in alone.row  # as the machine says


PLUGIN = """
from torch.nn.functional import cross_entropy
from kdbench.method import Method, Needs
from kdbench.registry import register

@register
class Edited(Method):
    needs = Needs(teacher=False)
    def loss(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}
"""


def test_other_code_discards_the_checkpoint_comments_do_not(lab, tmp_path):
    texts = {
        "same": PLUGIN + "# a comment\n",
        "edited": PLUGIN.replace("cross_entropy(s", "2 * cross_entropy(s"),
    }

    def load(name, text):
        registry._entries.pop("edited", None)
        (tmp_path / name).mkdir()
        (tmp_path / name / "edited.py").write_text(text)
        registry.load(tmp_path / name)
        return lab.cells("edited")[0]

    cell = load("first", PLUGIN)
    train_cohort(lab.job([cell]), stop=After(3))
    assert resumable(lab.work, cell)["step"] == 3
    assert resumable(lab.work, load("same", texts["same"]))["step"] == 3
    edited = load("edited", texts["edited"])
    assert edited.id == cell.id
    assert resumable(lab.work, edited) is None


@pytest.mark.parametrize(
    "content", [b"", b"torn", None, {"step": 3}, [1, 2], {"cell_id": "another", "code": ""}]
)
def test_a_file_that_is_not_the_cells_checkpoint_is_passed_over(lab, content):
    (cell,) = lab.cells("ce")
    path = checkpoint_path(lab.work, cell.id)
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert resumable(lab.work, cell) is None


def test_a_full_disk_costs_the_checkpoint_not_the_training(lab):
    """A file stands where the folder of checkpoints should be."""
    warned = []

    class Listener(Progress):
        def warn(self, text):
            warned.append(text)

    whole = lab.train("kd")["kd"]
    other = lab.using(work="blocked")
    other.work.write_text("")
    results, _ = train_cohort(other.job(other.cells("kd")), Listener())
    assert same(results[0].student, whole.student)
    assert len(warned) == 1
    assert str(other.work) in warned[0]
    assert "training goes on" in warned[0]


# --- jobs ---


def test_a_job_is_picklable_and_trains_the_same(lab):
    job = lab.job(lab.cells("kd", "mlkd", sets={"kd": {"temperature": [2.0]}}))
    assert [cell.id for cell in job.cells]  # cached ids travel along or are made anew
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert [c.id for c in copy.cells] == [c.id for c in job.cells]
    here, _ = train_cohort(job)
    there, _ = train_cohort(dataclasses.replace(copy, work=lab.folder / "elsewhere"))
    assert all(same(a.student, b.student) for a, b in zip(here, there, strict=True))
    assert same(pickle.loads(pickle.dumps(here[0])).student, here[0].student)
