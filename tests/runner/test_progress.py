"""What a long training tells while it runs: a bar in a terminal, a line now and then in a log file."""

import io
import sys
import time
from types import SimpleNamespace

import pytest

from kdbench.runner import progress
from kdbench.runner.pace import Pace


class Cell(SimpleNamespace):
    """What a progress reads of a cell."""

    def __str__(self):
        return self.id


def cells(*ids, student="small", epochs=12):
    return [Cell(id=name, student=student, recipe=SimpleNamespace(epochs=epochs)) for name in ids]


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_per_minute_with_the_time_left(clock, capsys):
    """Two of twelve epochs were done before; the third took 50 s, the fourth 70 s: 60 s an epoch, eight to go."""
    log = progress.shown()
    log.begin(cells("kd", "dkd beta=2"), epochs=12, steps=10, done=20)
    for epoch, seconds in [(3, 50), (4, 70), (5, 1)]:
        for _ in range(10):
            log.step(64)
        clock[0] += seconds
        log.epoch(epoch, {"kd": {"top1": 31.25}, "dkd beta=2": {"train_top1": 40.0}})
    log.end()
    told = capsys.readouterr()
    assert told.err == "2 students, epoch 4/12 done, 0:08:00 left; kd 31.2, dkd beta=2 40.0\n"
    assert not told.out


def test_a_short_training_is_silent_but_for_warnings(capsys):
    log = progress.shown()
    log.begin(cells("kd"), 1, 1, 0)
    log.epoch(1, {"kd": {"top1": 99.0}})
    assert not capsys.readouterr().err
    log.warn("the loss became nan")
    assert capsys.readouterr().err == "WARNING: the loss became nan\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress.shown()
    bar.begin(cells("kd", "ce"), epochs=3, steps=30, done=0)
    for _ in range(30):
        bar.step(64)
    bar.epoch(1, {"kd": {"top1": 31.25}})
    time.sleep(0.15)  # tqdm draws at most ten times a second
    for _ in range(30):
        bar.step(64)
    bar.warn("the loss became nan")
    bar.end()
    drawn = sys.stderr.getvalue()
    assert "2 students, epoch 2/3" in drawn
    assert "kd 31.2" in drawn
    assert "images/s" in drawn
    assert "WARNING: the loss became nan\n" in drawn


def test_a_log_knows_its_cohort_and_the_time_of_all(clock, capsys):
    """Of 2 + 1 students with 2 epochs each, 2 student-epochs took 120 s: 4 are left, that is 240 s."""
    log = progress.Log()
    first, second = cells("kd", "dkd", epochs=2), cells("ce", epochs=2)
    log.plan([first, second])
    log.begin(first, epochs=2, steps=1, done=0)
    clock[0] += 120
    log.step(8)
    log.epoch(1, {})
    assert capsys.readouterr().err == (
        "2 students, cohort 1 of 2, epoch 1/2 done, 0:02:00 left, 0:04:00 left in all\n"
    )


def test_a_teacher_is_named_as_such(clock, capsys):
    log = progress.Log()
    teacher = cells("ce", epochs=2)
    log.plan([teacher], "teacher large")
    log.begin(teacher, epochs=2, steps=1, done=0)
    clock[0] += 60
    log.step(8)
    log.epoch(1, {})
    assert capsys.readouterr().err == "teacher large, epoch 1/2 done, 0:01:00 left\n"


def test_the_pace_counts_what_is_left_of_each_cell(clock):
    """Done steps of a checkpoint are not work; halves after a full memory start again; a recorded cell has no rest."""
    pace, both = Pace(), cells("a", "b", epochs=4)
    pace.plan([both, cells("c", epochs=4)])
    training = pace.begin(both, epochs=4, steps=2, done=4)  # 2 x 2 epochs and 4 are left
    assert pace.seconds_left() is None
    clock[0] += 10
    pace.advance(training)  # 1 student-epoch in 10 s, 7 are left
    assert pace.seconds_left() == pytest.approx(70)
    half = pace.begin(both[:1], epochs=4, steps=2, done=0)  # a: 4, b: 1.5, c: 4
    assert (half.place, half.epoch) == ("cohort 1 of 2", 1)
    assert pace.seconds_left() == pytest.approx(95)
    pace.finish("a")
    assert pace.seconds_left() == pytest.approx(55)
