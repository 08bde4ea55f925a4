"""What is compared as cost, and what a finite test set adds: the words below a table."""

import re

import numpy as np
import pytest

from kdbench.report import sampling
from tests.support.scenarios import COLUMN, A, boards, cells, run, runs, said


def timed(method, seconds, teacher=100.0, **more):
    """Two seeds of 240 epochs; seconds an epoch of own steps, of the teacher's outputs and 10 of the data."""
    known = {"teacher_s": teacher and 240 * teacher, "data_s": 2400.0, "threads": 2, "cohort_size": 3}
    return runs(method, 70.0, 71.0, train_s=240.0 * seconds, **(known | more))


def test_alone_is_own_steps_teacher_and_data(tmp_path):
    ce = timed("ce", 100.0, None, pair=(None, A[1]))
    (b,) = boards(tmp_path, [*timed("kd", 100.0), *timed("dkd", 205.0), *ce])
    shown = cells(b)
    assert [shown[m, "step x kd"] for m in ("kd", "dkd", "ce")] == ["1.00", "2.05", "1.00"]
    assert [shown[m, "alone x kd"] for m in ("kd", "dkd", "ce")] == [
        "1.00",
        "1.50",
        "0.52",
    ]  # 315 / 210, 110 / 210
    assert "No c" not in said(b)


@pytest.mark.parametrize("other", [{"device": "cpu"}, {"threads": 8}, {"cohort_size": 1}])
def test_seconds_of_unlike_machines_are_not_compared(tmp_path, other):
    (b,) = boards(
        tmp_path, [*timed("kd", 100.0), *timed("dkd", 200.0, **other), *timed("dist", 150.0, cohort_size=9)]
    )
    shown = cells(b)
    assert shown["dkd", "step x kd"] == shown["dkd", "alone x kd"] == "–"
    assert shown["dist", "step x kd"] == "1.50"
    assert "No cost (–) of dkd: on some pair no seed was run on the device, thread count and kind" in said(b)


def test_older_rows_have_no_cost_alone_and_it_is_said(tmp_path):
    (b,) = boards(tmp_path / "all", [*runs("kd", 70.0, 71.0), *runs("dkd", 70.0, 71.0)])
    assert ("kd", "alone x kd") not in cells(b)
    assert cells(b)["dkd", "step x kd"] == "1.00"
    assert "No column of the cost alone: the rows do not hold" in said(b)
    some = [
        *timed("kd", 100.0),
        *timed("dkd", 100.0, data_s=None),
        *timed("dist", 100.0, teacher_cache="float16"),
    ]
    (b,) = boards(tmp_path / "some", [*some, *timed("at", 100.0)])
    assert cells(b)["dkd", "alone x kd"] == cells(b)["dist", "alone x kd"] == "–"
    assert "No cost alone (–) of dist, dkd: the rows do not hold" in said(b).replace("dkd, dist", "dist, dkd")


def test_the_test_sets_own_error_is_said_where_its_size_is_known(tmp_path):
    (b,) = boards(tmp_path / "a", runs("kd", 70.0, 70.0, tested=10_000))
    assert "70% on 10,000 images has a standard error of 0.46 points (95%: ± 0.90)" in said(b)
    (b,) = boards(tmp_path / "b", [run("kd"), run("dkd", pair=A)])
    assert "standard error" not in said(b)
    assert cells(b)["kd", COLUMN]


@pytest.mark.parametrize(("top1", "images"), [(70.0, 10_000), (90.0, 540)])
def test_a_calibrated_models_ece_stays_below_what_is_said(tmp_path, top1, images):
    (b,) = boards(tmp_path, runs("kd", top1, top1, tested=images))
    most = float(re.search(r"ECE of up to ([\d.]+) points", said(b))[1])
    rng = np.random.default_rng(0)
    confidence = rng.beta(4 * top1 / 100, 4 * (1 - top1 / 100), (50, images))  # of mean top1
    right = rng.random(confidence.shape) < confidence
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        [abs((c - r)[k == i].sum()) for i in range(15)]
        for c, r, k in zip(confidence, right, bins, strict=True)
    ]
    seen = 100 * np.sum(gaps, axis=1).mean() / images
    assert most / 3 < seen < most
    assert sampling.ece_floor_most(top1, images) == pytest.approx(most, abs=0.05)
