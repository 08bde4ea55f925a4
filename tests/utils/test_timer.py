"""Clocks: what they add up, what they leave out, and what stands for steps that nobody timed."""

import contextlib

import pytest
import torch

from kdbench.utils import timer
from kdbench.utils.timer import StepWatch, Stopwatch

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """The time, which tests advance."""
    now = [0.0]
    monkeypatch.setattr(timer.time, "perf_counter", lambda: now[0])
    return now


def take(watch, clock, *seconds):
    for each in seconds:
        with watch.running():
            clock[0] += each


def test_a_stopwatch_leaves_pauses_out(clock):
    watch = Stopwatch(CPU)
    take(watch, clock, 2.0)
    with watch.running():
        clock[0] += 1.0
        with watch.paused():
            clock[0] += 100.0
        clock[0] += 0.5
    assert watch.seconds == watch.seconds == 3.5


def test_a_pause_that_raises_leaves_the_clock_right(clock):
    watch = Stopwatch(CPU)
    with watch.running():
        clock[0] += 1.0
        with contextlib.suppress(ValueError), watch.paused():
            clock[0] += 100.0
            raise ValueError
        clock[0] += 2.0
    assert watch.seconds == 3.0


def test_all_steps_timed_is_their_sum(clock):
    watch = StepWatch(CPU)
    take(watch, clock, 1.0, 2.0, 6.0)
    watch.add(10.0)
    assert (watch.seconds, watch.timed) == (19.0, 3)


def test_untimed_steps_count_as_the_median_beside_them(clock):
    """First 1 + 2 + 9 and two of 2; then, settled, 5 and three of 5."""
    watch = StepWatch(CPU)
    take(watch, clock, 1.0, 2.0, 9.0)
    watch.skip()
    watch.skip()
    assert (watch.seconds, watch.timed) == (16.0, 3)
    watch.settle()
    take(watch, clock, 5.0)
    for _ in range(3):
        watch.skip()
    assert (watch.seconds, watch.timed) == (36.0, 4)
    other = StepWatch(CPU)
    other.load(watch.seconds, watch.timed)
    take(other, clock, 1.0)
    assert (other.seconds, other.timed) == (37.0, 5)


def test_events_are_recorded_on_the_watchs_own_device(monkeypatch):
    """Those of another current device would time nothing."""
    recorded = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            recorded.append(stream)

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    watch = Stopwatch(torch.device("cuda:1"))
    with watch.running():
        pass
    assert watch.seconds == 1.5
    assert recorded == ["stream of cuda:1"] * 2
