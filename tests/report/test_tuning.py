"""The report of a search: its curves, who wins, and tuned against default on seeds that were not tuned with."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdbench.report import figures, tuning
from kdbench.report.figures import slices
from kdbench.report.figures import tuning as curves
from kdbench.report.figures.sheet import SCREEN
from kdbench.results.schema import TRIAL_COLUMNS

SPACE = json.dumps({"x": {"log": [1, 16]}, "y": {"linear": [0, 1]}, "form": {"choice": ["a", "b"]}})


TUNED = "tuned (9 trials)"


def trial(number, top1, x=4.0, y=0.5, form="a", method="kd", **more):
    row = {
        "study": "0123456789ab", "trial": number, "suite": "s", "teacher": "t", "student": "u", "method": method,
        "params": json.dumps({"x": x, "y": y, "form": form}), "recipe": "{}", "space": SPACE, "seeds": "0 1",
        "epochs": 3, "status": "ok" if top1 else "diverged", "top1": top1, "train_s": 1800.0, "cells": "",
        "ended_utc": f"2026-01-01T00:00:{number:02}+00:00",
    }  # fmt: skip
    return row | more


def run(method, seed, top1, variant="", **more):
    row = {
        "teacher": "t", "student": "u", "method": method, "seed": seed, "variant": variant, "top1": top1,
        "split": "test", "status": "ok", "dataset": "d", "epochs_done": 3, "teacher_id": "i", "split_id": "p",
        "precision": "fp32", "method_version": 1,
    }  # fmt: skip
    return row | more


def frame(rows):
    return pd.DataFrame(rows, columns=TRIAL_COLUMNS)


def test_curves_are_the_expected_best_and_its_hours():
    data = curves.frame(frame([trial(0, 50.0), trial(1, 60.0), trial(2, None)]))
    assert list(data["trials"]) == [1, 2, 3]
    assert list(data["hours"]) == [0.5, 1.0, 1.5]
    assert data["expected"].iloc[0] == pytest.approx(110 / 3)  # the one that diverged counts as 0
    assert (data["low"] <= data["expected"]).all()
    assert (data["expected"] <= data["high"] + 1e-9).all()


def test_slices_have_a_line_per_trial_and_parameter():
    data = slices.frame(frame([trial(0, 50.0), trial(1, 60.0, form="b"), trial(2, None)]))
    assert len(data) == 2 * 3
    form = data[data["parameter"] == "form"]
    assert list(form["value"]) == [0.0, 1.0]
    assert list(data[data["parameter"] == "x"]["log"]) == [True, True]
    assert list(form["default"]) == [True, False]


def test_tuned_is_compared_with_default_on_the_same_seeds():
    gains = np.array([1.0, 2.0, 1.5, 2.5])
    rows = [run("kd", seed, 70.0 + seed) for seed in range(3, 8)]
    rows += [
        run("kd", seed, 70.0 + seed + gain, TUNED) for seed, gain in zip(range(3, 7), gains, strict=True)
    ]
    rows += [run("kd", 3, 99.0, TUNED, split="holdout"), run("kd", 3, 99.0, "temperature=2")]
    (line,) = tuning.against_default(pd.DataFrame(rows), frame([trial(0, 50.0)])).to_dict("records")
    assert (line["n"], line["shared"]) == (4, False)
    assert line["tuned"] - line["default"] == pytest.approx(line["delta"])
    half = stats.t.ppf(0.975, 3) * gains.std(ddof=1) / 2
    assert (line["low"], line["high"]) == pytest.approx((1.75 - half, 1.75 + half))


@pytest.mark.parametrize(
    "other", [{"teacher_id": "j"}, {"precision": "bf16"}, {"split_id": "q"}, {"method_version": 2}]
)
def test_runs_of_other_conditions_are_no_further_seeds(other):
    rows = [run("kd", seed, 60.0 + seed) for seed in (1, 2)]
    rows += [run("kd", seed, 62.0 + 2 * seed, "tuned (8 trials)") for seed in (1, 2)]
    rows += [run("kd", seed, 10.0, **other) for seed in (1, 2)]
    (line,) = tuning.against_default(pd.DataFrame(rows), frame([trial(0, 50.0)])).to_dict("records")
    assert (line["n"], line["delta"]) == (2, pytest.approx(3.5))


def test_each_budget_has_a_line_and_methods_without_a_teacher_too():
    rows = [run("tfkd", seed, 60.0, teacher=None, teacher_id=None) for seed in (1, 2)]
    for trials, top1 in ((8, 61.0), (24, 64.0)):
        rows += [
            run("tfkd", seed, top1, f"tuned ({trials} trials)", teacher=None, teacher_id=None)
            for seed in (1, 2)
        ]
    lines = tuning.against_default(pd.DataFrame(rows), frame([trial(0, 50.0)]))
    assert sorted(lines["delta"]) == [1.0, 4.0]


def test_seeds_that_were_tuned_with_are_marked():
    rows = [
        run("kd", seed, 70.0 + gain, variant) for seed in (1, 2) for gain, variant in ((0, ""), (seed, TUNED))
    ]
    (line,) = tuning.against_default(pd.DataFrame(rows), frame([trial(0, 50.0)])).to_dict("records")
    assert line["shared"]


def test_p_counts_all_methods():
    """Holm by hand: the smaller p is doubled, the larger one is at least that."""
    gains = {"kd": [1.0, 2.0, 1.5, 2.5], "dist": [0.5, -0.4, 0.9, 0.3]}
    rows = [
        run(method, seed, 70.0 + gain * bool(variant), variant)
        for method, own in gains.items()
        for seed, gain in enumerate(own, 3)
        for variant in ("", TUNED)
    ]
    trials = frame([trial(0, 50.0, method=method) for method in gains])
    found = tuning.against_default(pd.DataFrame(rows), trials).set_index("method")["p"]
    alone = {method: stats.ttest_1samp(own, 0).pvalue for method, own in gains.items()}
    assert found["kd"] == pytest.approx(2 * alone["kd"])
    assert found["dist"] == pytest.approx(max(2 * alone["kd"], alone["dist"]))


def test_the_parameter_that_matters_is_named():
    pytest.importorskip("optuna", reason="importances need the extra kdbench[tune]")
    random = np.random.default_rng(0)
    rows = [
        trial(n, 50 + 10 * np.log(x), x=x, y=random.uniform())
        for n, x in enumerate(random.uniform(1, 16, 24))
    ]
    shares = tuning.importance(frame(rows))
    assert next(iter(shares)) == "x"
    assert shares["x"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert tuning.importance(frame(rows[:4])) == {}


def test_the_page_names_edges_and_the_default_that_won(tmp_path):
    rows = [trial(0, 50.0), trial(1, 60.0, x=16.0), trial(0, 80.0, method="dist", study="ba9876543210")]
    (tmp_path / "s.tuning.csv").write_text(frame(rows).to_csv(index=False, lineterminator="\n"))
    trials = tuning.trials_of([tmp_path], "s")
    tuning.write(tmp_path, "s", trials, pd.DataFrame([run("kd", 3, 70.0)]), ["foot"])
    shown = [picture for picture, _ in figures.write(tuning.drawings(trials), SCREEN, ["foot"], tmp_path)]
    text = (tmp_path / "tuning.md").read_text("utf-8")
    assert "| t → u | dist | 1 | 0.50 | 80.00 | 80.00 |  | the default |" in text
    assert "| t → u | kd | 2 | 1.00 | 50.00 | 60.00 | x | x=16.0 y=0.5 form=a |" in text
    assert [picture.name for picture in shown] == ["tuning", "slices"]
    assert (tmp_path / "tuning.png").stat().st_size > 5000
    (tmp_path / "s.tuning.csv").unlink()
    trials = tuning.trials_of([tmp_path], "s")
    assert tuning.drawings(trials) == []
    tuning.write(tmp_path, "s", trials, pd.DataFrame(), ["foot"])
    assert not (tmp_path / "tuning.md").exists()
