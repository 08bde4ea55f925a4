"""Scale curves: their points, the work of a step, files and figure."""

import numpy as np
import pandas as pd
import pytest

from kdbench import suites
from kdbench.bench import command, figures, ranks, scaling
from tests.support.timed import PAIR


def test_every_point_is_measured_once():
    points = scaling.points()
    assert len(points) == len(set(points))
    assert {point.cells for point in points if point.pair == scaling.MAIN} >= {1, 2, 5, 10, 12}


def test_work_of_a_step_by_the_literatures_macs():
    """resnet56 125.8 M, resnet20 40.8 M multiply-accumulates: a forward of the teacher, 3 of each of 5 students."""
    suite = suites.load("cifar100")
    work = scaling.work_of(suite, scaling.Point(scaling.MAIN), "cpu", None)
    assert scaling.flop_per_step(work, 5) == pytest.approx(2 * 64 * (125.8e6 + 15 * 40.8e6), rel=2e-3)


def test_scale_writes_curves_for_its_points(lab, here, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(scaling, "starts", lambda: pd.DataFrame([{"what": "kdbench --help", "seconds": 0.1}]))
    monkeypatch.setattr(command.ranks, "table", lambda *_: pd.DataFrame([{"ranks": 2}]))
    pair = str(PAIR)
    points = [scaling.Point(pair, cells, 8) for cells in (1, 3)]
    command.measure_scale(str(lab.suite_file()), tmp_path, "cpu", which=points)
    found = pd.read_csv(tmp_path / "scale-cpu.csv")
    assert list(found.columns) == scaling.COLUMNS
    assert list(found["cells"]) == [1, 3]
    np.testing.assert_allclose(found["ms"], found["ms_step"] / found["cells"])
    np.testing.assert_allclose(found["img_per_s"], 8000 / found["ms"])
    np.testing.assert_allclose(found["tflop_per_s"], found["gflop_step"] / found["ms_step"])
    np.testing.assert_allclose(found["share_of_peak"], found["tflop_per_s"] / found["peak_tflop_per_s"])
    assert (tmp_path / "scale-cpu.png").stat().st_size > 0
    assert list(pd.read_csv(tmp_path / "startup.csv")["seconds"]) == [0.1]
    assert list(pd.read_csv(tmp_path / "ranks-cpu.csv")["ranks"]) == [2]


@pytest.mark.slow
def test_ranks_are_timed_beside_their_part_alone(lab, here):
    suite = suites.load(str(lab.suite_file()))
    found = ranks.table(suite, "cpu", None, [1, 2], lambda text: None, scaling.Point(str(PAIR), 2, 16))
    assert list(found.columns) == ranks.COLUMNS
    assert list(found["ranks"]) == [1, 2]
    assert found["exchange"][0] == 0
    assert 0 <= found["exchange"][1] < 1
    np.testing.assert_allclose(found["img_per_s"], 1000 * 2 * 16 / found["ms_step"])


def test_the_scale_figure_draws_each_pairs_curve_over_cells():
    row = {
        "batch_size": 64,
        "ms": 9.0,
        "ms_low": 8.0,
        "ms_high": 10.0,
        "peak_mem_mb": 500.0,
        "idle_mem_mb": 9.0,
        "precision": "bf16",
    }
    row |= {"device": "d", "threads": 2, "torch": "2", "peak_tflop_per_s": 1.0}
    pairs = [scaling.MAIN, "wrn_40_2:wrn_16_2"]
    rows = [
        {**row, "pair": pair, "cells": cells, "gflop_step": 2.0 * cells}
        for pair in pairs
        for cells in (1, 2, 5)
    ]
    figure = figures.draw(pd.DataFrame(rows))
    first = figure.get_axes()[0]
    assert [line.get_label() for line in first.get_lines()] == pairs
    assert list(first.get_lines()[0].get_xdata()) == [1, 2, 5]


@pytest.mark.slow
def test_starts_are_timed():
    found = scaling.starts(repeats=1)
    assert found["seconds"].between(0.01, 120).all()
    assert found["seconds"].is_monotonic_increasing  # help before the first step of a run
