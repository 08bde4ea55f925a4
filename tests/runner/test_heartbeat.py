"""What a running process says of itself: read back while it lives, gone with it, never in its way."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from kdbench.runner.heartbeat import Heartbeat, beating


class Cell(SimpleNamespace):
    """What a heartbeat reads of a cell."""

    def __str__(self):
        return self.id


def cells(*ids, seed=0, teacher="large"):
    recipe = SimpleNamespace(epochs=4)
    return [Cell(id=name, student="small", teacher=teacher, seed=seed, recipe=recipe) for name in ids]


@pytest.fixture
def heart(tmp_path):
    with Heartbeat(tmp_path, "tiny") as heart:
        yield heart


def test_it_says_what_trains_and_how_much_is_done(heart, tmp_path):
    first, second = cells("ce", teacher=None) + cells("kd", "dkd"), cells("rkd", seed=1)
    heart.plan([first, second])
    heart.begin(first, epochs=4, steps=10, done=10)
    heart.record(first[0], {}, [])
    (beat,) = beating(tmp_path)
    assert (beat.pid, beat.suite, beat.cells, beat.recorded) == (os.getpid(), "tiny", 4, 1)
    assert beat.cohorts == ["cohort 1 of 2; ce, small, seed 0; kd, dkd, large -> small, seed 0; epoch 2 of 4"]
    heart.end()
    (beat,) = beating(tmp_path)
    assert beat.cohorts == []


def test_lanes_are_listed_together(heart, tmp_path):
    cohorts = [cells("kd"), cells("dkd", seed=1)]
    heart.plan(cohorts)
    for number, cohort in enumerate(cohorts):
        heart.lane(number).begin(cohort, epochs=4, steps=1, done=0)
    heart.lane(1).step(8)
    heart.lane(0).end()
    (beat,) = beating(tmp_path)
    assert beat.cohorts == ["cohort 2 of 2; dkd, large -> small, seed 1; epoch 2 of 4"]


def test_a_teacher_is_no_cell_of_the_results(heart, tmp_path):
    teacher = cells("ce", teacher=None)
    heart.plan([teacher], "teacher large")
    heart.begin(teacher, epochs=4, steps=1, done=0)
    (beat,) = beating(tmp_path)
    assert (beat.cells, beat.cohorts) == (0, ["teacher large, epoch 1 of 4"])


def test_steps_are_written_once_a_second(heart, tmp_path, monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heart.begin(cells("kd"), epochs=4, steps=1, done=0)
    written = set()
    for _ in range(30):  # three seconds
        now[0] += 0.1
        heart.step(8)
        written |= {file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert 3 <= len(written) <= 4


def test_the_file_goes_with_the_process(tmp_path):
    with Heartbeat(tmp_path, "tiny") as heart:
        heart.plan([cells("kd")])
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_a_dead_process_is_not_shown_and_its_file_is_removed(heart, tmp_path):
    heart.plan([cells("kd")])
    (file,) = tmp_path.iterdir()
    dead = subprocess.run([sys.executable, "-S", "-c", "import os; print(os.getpid())"], capture_output=True)
    note = {**json.loads(file.read_bytes()), "pid": int(dead.stdout)}
    file.rename(tmp_path / "other.json").write_text(json.dumps(note))
    assert beating(tmp_path) == []
    with Heartbeat(tmp_path, "tiny"):
        assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"pid": 1}'])
def test_a_file_that_is_no_note_is_passed_over(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert beating(tmp_path) == []


def test_a_folder_that_cannot_be_written_costs_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    with Heartbeat(tmp_path / "file" / "running", "tiny") as heart:
        heart.begin(cells("kd"), epochs=4, steps=1, done=0)
        heart.step(8)
