"""Hours that a suite takes, extrapolated from timed steps."""

import dataclasses
import itertools
import os
import re

import pytest

from kdbench import suites
from kdbench.bench import estimate, timing
from kdbench.bench.workload import work
from tests.support.cli_process import kdbench
from tests.support.timed import PAIR
from tests.support.tiny import make


def test_sizes_of_known_sets():
    data = suites.load("cifar100").dataset
    assert estimate.sizes(data) == (50_000, 10_000)
    assert estimate.sizes(dataclasses.replace(data, train_per_class=20)) == (2_000, 10_000)
    assert estimate.sizes(suites.load("digits").dataset) == (600, 899)


def test_training_hours_by_hand():
    """782 steps an epoch, 240 epochs, 0.1 s each: 5 h 12 min 48 s."""
    assert estimate.training_hours(100, 50_000, 64, 240) == pytest.approx(5 + 12 / 60 + 48 / 3600)
    assert estimate.training_hours(100, 50_000, 64, 240, runs=3) == pytest.approx(15.64)


def test_costs_add_up_steps_evaluations_and_seeds(lab, monkeypatch):
    """A clock that ticks 1 s a reading: each timed step and the evaluation of 64 images take a second."""
    clock = itertools.count()
    monkeypatch.setattr(timing, "now", lambda device: float(next(clock)))
    monkeypatch.setattr(estimate, "now", timing.now)
    asked = work(lab.suite, PAIR, ["ce", "kd"], "cpu")
    cost = estimate.cost(asked, 3, (64, 128))
    assert cost.step_ms == 1000
    assert cost.hours == pytest.approx(
        3 * (2 * 4 * 1 + 2 * 128 / 64) / 3600
    )  # 2 epochs of 4 steps, 2 evaluations


def test_a_method_that_skips_a_pair_takes_no_hours(lab):
    alone = estimate.cost(work(lab.suite, PAIR, ["fsp"], "cpu"), 1, (64, 24))
    assert (alone.step_ms, alone.hours) == (0, pytest.approx(0, abs=1e-6))
    assert estimate.cost(work(lab.suite, PAIR, ["fsp", "ce"], "cpu"), 1, (64, 24)).step_ms > 0


def test_large_batches_are_timed_in_part(lab, monkeypatch):
    """4 of a batch's 16 images take a second, so the batch takes 4."""
    clock = itertools.count()
    monkeypatch.setattr(timing, "now", lambda device: float(next(clock)))
    monkeypatch.setattr(estimate, "PIXELS", 4 * 8 * 8)
    assert estimate.cost(work(lab.suite, PAIR, ["ce"], "cpu"), 1, (64, 24)).step_ms == 4000


def test_suites_tells_hours_or_why_not(tmp_path):
    place = make(tmp_path / "place")
    done = kdbench("suites", "tiny.toml", cwd=place, before=lambda: _data(place))
    assert done.code == 0
    assert "timing large:small: a few steps of ce, kd side by side" in done.err
    line = next(line for line in done.out.splitlines() if line.startswith("all pairs"))
    assert re.fullmatch(r"all pairs +[\d.]+ (s|min)", line)
    unknown = kdbench("suites", "tiny.toml", cwd=place, before=lambda: _data(tmp_path / "none"))
    assert "no estimate of hours: the data folder" in unknown.out
    assert "per step" not in kdbench("suites", "tiny.toml", "--no-timing", cwd=place).out


def _data(folder):
    os.environ["KDBENCH_DATA"] = str(folder / "data")
