"""What a long training tells while it runs: a bar in a terminal, a line now and then in a log file."""

import io
import sys
import time

from kdbench.runner import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_per_minute_with_the_time_left(monkeypatch, capsys):
    """Two of twelve epochs were done before; the third took 50 s, the fourth 70 s: 60 s an epoch, eight to go."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    log = progress.shown()
    log.begin(cells=2, epochs=12, steps=10, done=20)
    for epoch, seconds in [(3, 50), (4, 70), (5, 1)]:
        for _ in range(10):
            log.step(64)
        clock[0] += seconds
        log.epoch(epoch, {"kd": 31.25, "dkd beta=2": 40.0})
    log.end()
    told = capsys.readouterr()
    assert told.err == "2 students, epoch 4/12 done, 0:08:00 left; kd 31.2, dkd beta=2 40.0\n"
    assert not told.out


def test_a_short_training_is_silent_but_for_warnings(capsys):
    log = progress.shown()
    log.begin(1, 1, 1, 0)
    log.epoch(1, {"kd": 99.0})
    assert not capsys.readouterr().err
    log.warn("the loss became nan")
    assert capsys.readouterr().err == "WARNING: the loss became nan\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress.shown()
    bar.begin(cells=2, epochs=3, steps=30, done=0)
    for _ in range(30):
        bar.step(64)
    bar.epoch(1, {"kd": 31.25})
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
