"""Cohorts side by side in several processes: the same numbers, and nothing lost whoever dies."""

import os
import signal

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner import run as driver
from kdbench.train.callbacks import Progress
from kdbench.utils import locks

STARTING = 60  # seconds that a helper may take to import torch on a busy machine


class Waiting(Progress):
    """Holds up the cohorts of this process, from the first on, until ``ready()``."""

    def __init__(self, ready):
        self.ready = ready

    def begin(self, cells, epochs, steps, done):
        self.ready()


@pytest.fixture
def room(lab, wait_for):
    """`run` of ce and kd on two seeds by two processes, and what the helper is doing."""
    weights = lab.folder / "weights"
    weights.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), weights / "teacher.pth")
    file = str(lab.suite_file())

    class Room:
        results = lab.folder / "results"

        def run(self, progress=None, **options):
            usual = {
                "data_dir": lab.data, "teacher_weights": weights, "results": self.results, "device": "cpu",
                "seeds": [0, 1], "jobs": 2,
            }  # fmt: skip
            return driver.run(file, ["ce", "kd"], progress=progress, **(usual | options))

        def rows(self):
            return store.read(self.results / "tiny.csv")

        def helper(self, parent):
            """The process that trains beside ``parent``; None while there is none."""
            notes = locks.running(self.results / ".work" / "locks").values()
            return next((note["pid"] for note in notes if note["pid"] != parent), None)

        def wait(self, condition, what):
            wait_for(condition, what, STARTING)

    return Room()


def test_two_processes_share_the_cohorts_and_give_the_numbers_of_one(room, lab):
    both = room.run(Waiting(lambda: room.wait(lambda: len(room.rows()) == 2, "the helper's rows")))
    assert (both.exit_code, both.elsewhere) == (0, 0)
    assert sorted(room.rows()["seed"]) == [0, 0, 1, 1]
    alone = room.run(jobs=1, results=lab.folder / "alone")
    columns = ["cell_id", "status", "top1", "nll", "agree_teacher"]
    one, two = (each.records.sort_values("cell_id")[columns].to_csv(index=False) for each in (alone, both))
    assert one == two


def test_a_dead_helper_leaves_its_cohort_to_the_others(room):
    me, killed = os.getpid(), []

    def kill():
        if not killed:
            room.wait(lambda: room.helper(me), "the helper")
            killed.append(room.helper(me))
            os.kill(killed[0], signal.SIGKILL)

    outcome = room.run(Waiting(kill), epochs=20)  # so many that the helper is not done when it is killed
    assert outcome.exit_code == 0
    assert outcome.records["status"].tolist() == ["ok"] * 4
    assert room.rows()["attempt"].tolist() == [1] * 4


def test_helpers_save_and_leave_when_their_parent_dies(room, in_child):
    parent = in_child(lambda: room.run(Waiting(signal.pause), epochs=20)).pid
    room.wait(lambda: room.helper(parent), "the helper")
    os.kill(parent, signal.SIGKILL)
    room.wait(lambda: room.helper(parent) is None, "its end")
    assert room.rows()["status"].tolist() == ["interrupted"] * 2
    assert len(list((room.results / ".work").glob("*.pt"))) == 2


def test_there_is_at_least_one_process():
    with pytest.raises(KdbenchError, match="jobs must be at least 1, got 0"):
        driver.run(jobs=0)
