"""`tune`: equal budgets, the default first, the same trials whatever interrupts it, and the test split untouched."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import signal

import numpy as np
import pandas as pd
import pytest

from kdbench import registry
from kdbench.plan import settings
from kdbench.results import store
from kdbench.results.schema import COLUMNS, TRIAL_COLUMNS
from kdbench.results.trials import at_edge, best, read_trials, values_of
from kdbench.runner import tuning, workspace
from kdbench.runner.pruning import floors
from kdbench.runner.studies import Budget, winners
from kdbench.runner.tuning import tune
from tests.support.cli_process import kdbench, spawn
from tests.support.tiny import RUN, TUNE, make

pytest.importorskip("optuna", reason="tuning needs the extra kdbench[tune]")
registry.load()
TRIAL = [
    "study",
    "trial",
    "method",
    "params",
    "recipe",
    "status",
    "top1",
    "cells",
]  # a repetition gives them again


@pytest.fixture
def place(tmp_path):
    return make(tmp_path / "place")


@pytest.fixture
def search(place, monkeypatch):
    """`tune` on the tiny suite where a run's accuracy is a formula of its cell; returns the trials."""

    def run(accuracy, methods="kd", results=place / "results", **arguments):
        def train(missing, inputs, progress, stop):
            for cell in missing.cells:
                top1 = accuracy(cell)
                row = dict.fromkeys(COLUMNS) | {
                    "schema": store.SCHEMA, "cell_id": cell.id, "suite": cell.suite, "dataset": "tiny",
                    "split": cell.split, "student": cell.student, "method": cell.method, "method_version": 1,
                    "params": "{}", "seed": cell.seed, "top1": top1, "train_s": 10.0,
                    "status": "diverged" if top1 is None else "ok", "started_utc": "2026-01-01T00:00:00+00:00",
                }  # fmt: skip
                store.append(inputs.workspace.paths.rows, [row])

        monkeypatch.setattr(tuning.driver, "train_and_record", train)
        usual = {
            "data_dir": place / "data",
            "teacher_weights": place / "teachers",
            "results": place / "results",
        }
        return tune(str(place / "tiny.toml"), methods, **usual, **arguments)

    return run


def peak(cell):
    """Highest at temperature 9; the seed adds the same to all."""
    return 80 - 10 * abs(math.log(cell.params["temperature"] / 9)) + cell.seed


def test_the_first_trial_is_the_default_and_all_get_as_many(search):
    tuned = search(peak, "kd,mlkd", trials=11, seeds=[0, 1])
    assert tuned.complete
    assert list(tuned.rows.columns) == TRIAL_COLUMNS
    for name in ("kd", "mlkd"):
        rows = tuned.rows[tuned.rows["method"] == name]
        assert list(rows["trial"]) == list(range(11))
        default = registry.get(name)()
        assert values_of(rows.iloc[0]) == {key: getattr(default, key) for key in default.space}
    first = tuned.rows.iloc[0]
    assert first["top1"] == pytest.approx(80 - 10 * math.log(9 / 4) + 0.5)
    assert first["train_s"] == 20.0
    runs = store.read(tuned.file.parent / "tiny.trials.csv")
    assert list(runs.loc[runs["cell_id"].isin(first["cells"].split()), "seed"]) == [0, 1]


def test_a_bad_default_is_repaired(search, place):
    text = (place / "tiny.toml").read_text()
    (place / "tiny.toml").write_text(text + "[params.kd]\ntemperature = 1.1\n")
    tuned = search(peak, trials=24)
    top = best(tuned.rows)
    assert tuned.rows["top1"].iloc[0] < 60
    assert top["top1"] > 78  # within a fifth of the best temperature
    (winner,) = settings.read(tuned.file)
    assert winner.label == "tuned (24 trials)"
    assert winner.params["temperature"] == pytest.approx(9, rel=0.2)


@pytest.mark.parametrize("first", [8, 11])
def test_more_trials_go_on_where_the_first_ended(search, tmp_path, first):
    search(peak, trials=first)
    more = search(peak, trials=16)
    whole = search(peak, trials=16, results=tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(more.rows[TRIAL], whole.rows[TRIAL])


@pytest.mark.parametrize("written", [1, 5, 8, 9])
def test_rows_that_a_kill_left_out_are_made_again(search, tmp_path, place, written):
    """Killed while the outcomes of a round were written: the runs are there, the trials' rows are not."""
    whole = search(peak, trials=16)
    file = place / "results" / "tiny.tuning.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[: 1 + written]))
    again = search(peak, trials=16)
    pd.testing.assert_frame_equal(again.rows[TRIAL], whole.rows[TRIAL])
    assert store.read(place / "results" / "tiny.trials.csv")["cell_id"].is_unique


def test_where_all_diverge_there_is_no_file_of_winners(search):
    tuned = search(lambda cell: None, trials=3)
    assert tuned.complete
    assert len(tuned.rows) == 3
    assert not tuned.file.exists()


def test_runs_that_diverge_count_as_chance_and_never_win(search):
    """Above temperature 3 all diverge; 4 in 10 of random trials are below it."""

    def accuracy(cell):
        return None if cell.params["temperature"] > 3 else 50 + cell.params["temperature"]

    tuned = search(accuracy, trials=32)
    assert set(tuned.rows["status"]) == {"ok", "diverged"}
    assert tuned.rows.loc[tuned.rows["status"] == "diverged", "top1"].isna().all()
    assert best(tuned.rows)["top1"] <= 53
    later = [values_of(row)["temperature"] < 3 for row in tuned.rows.to_dict("records")[16:]]
    assert sum(later) > 0.6 * len(later)


def test_hours_stop_after_their_time(search):
    tuned = search(peak, hours=0.05)  # 180 s of 10 s each, in rounds of 8
    assert tuned.complete
    assert len(tuned.rows) == 24


def test_learning_rate_and_decay_are_searched_for_all_alike(search):
    tuned = search(
        lambda cell: 50 - 10 * abs(math.log(cell.recipe.lr / 0.2)), "ce,kd", trials=16, tune_recipe=True
    )
    assert values_of(tuned.rows.iloc[0]) == {"lr": 0.05, "weight_decay": 5e-4}
    assert set(tuned.rows["method"]) == {"ce", "kd"}
    by_method = {each.method: each.recipe["lr"] for each in settings.read(tuned.file)}
    assert all(0.1 < lr < 0.4 for lr in by_method.values())


def test_an_edge_that_wins_is_named(search):
    tuned = search(lambda cell: 50 + cell.params["temperature"], trials=24, batch=4)
    assert "the best temperature is at the edge of 1 to 16, log: widen it by --space" in tuned.table()


@pytest.mark.parametrize(
    ("value", "table", "edge"),
    [
        (16.0, {"log": [1, 16]}, True),
        (1.02, {"log": [1, 16]}, True),
        (8.0, {"log": [1, 16]}, False),
        (0.5, {"linear": [0, 1]}, False),
        (0.99, {"linear": [0, 1]}, True),
        ("a", {"choice": ["a", "b"]}, False),
    ],
)
def test_what_is_at_an_edge(value, table, edge):
    row = {"params": json.dumps({"x": value}), "recipe": "{}", "space": json.dumps({"x": table})}
    assert at_edge(row) == ["x"] * edge


def test_the_winner_is_of_the_latest_study_of_a_pair():
    row = {"teacher": "t", "student": "s", "method": "kd", "recipe": "{}", "status": "ok"}
    trials = pd.DataFrame(
        {**row, "study": study, "trial": trial, "top1": top1, "params": f'{{"x":{trial}}}', "ended_utc": when}
        for study, trial, top1, when in (
            ("old", 0, 99.0, "1"), ("new", 0, 50.0, "2"), ("new", 1, 60.0, "3"), ("new", 2, 60.0, "4"),
        )
    )  # fmt: skip
    (winner,) = winners(trials)
    assert (winner.params, winner.label) == ({"x": 1}, "tuned (3 trials)")


def test_budgets_end():
    before = pd.DataFrame({"train_s": [1800.0] * 8})
    assert Budget(trials=24).end(8, before) == 16
    assert Budget(trials=10).end(8, before) == 10
    assert Budget(trials=4).end(8, before) <= 8
    assert Budget(hours=4.1).end(8, before) == 16
    assert Budget(hours=4.0).end(8, before) == 8


def test_the_test_images_are_never_read(place, monkeypatch):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"the test split is read: {name}")

    load = workspace.load_data

    def without_test(*arguments):
        dataset, measured = load(*arguments)
        return dataclasses.replace(dataset, test=Untouchable()), measured

    monkeypatch.setattr(workspace, "load_data", without_test)
    usual = {"data_dir": place / "data", "teacher_weights": place / "teachers", "results": place / "results"}
    tuned = tune(str(place / "tiny.toml"), "kd", trials=2, epochs=1, **usual)
    assert tuned.complete
    assert (
        repr(tuned) == f"<tiny: 2 trials; the best settings are in {place / 'results' / 'tiny.tuned.toml'}>"
    )
    assert html.escape(tuned.table()) in tuned._repr_html_()
    assert set(store.read(place / "results" / "tiny.trials.csv")["split"]) == {"holdout"}


@pytest.mark.slow
def test_runs_below_the_median_of_earlier_trials_stop(place):
    """Two rounds of 8: those of the first all train to the end; a kill within the second changes nothing."""
    usual = {"data_dir": place / "data", "teacher_weights": place / "teachers", "results": place / "results"}
    arguments = {"trials": 16, "epochs": 16, "batch": 8, "prune": True, **usual}
    pruned = tune(str(place / "tiny.toml"), "kd", **arguments)
    first, second = pruned.rows.iloc[:8], pruned.rows.iloc[8:]
    assert set(first["status"]) == {"ok"}
    assert set(second["status"]) == {"ok", "pruned"}
    curves = pd.read_csv(place / "results" / "tiny.trials.curves.csv")
    top1 = curves[curves["term"] == "top1"].pivot_table(index="epoch", columns="cell_id", values="value")
    medians = top1[first["cells"]].median(axis=1)
    for row in second.to_dict("records"):
        own = top1[row["cells"]].dropna()
        below = own.cummax() < medians[own.index]
        assert not below[below.index < min(own.index[-1], 16)].any()
        assert (row["status"] == "pruned") == (below.iloc[-1] and own.index[-1] < 16)
    for file in (place / "results" / "tiny.tuning.csv", place / "results" / "tiny.trials.csv"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[: 1 + 11]))
    again = tune(str(place / "tiny.toml"), "kd", **arguments)
    pd.testing.assert_frame_equal(again.rows[TRIAL], pruned.rows[TRIAL])


def test_the_median_rule_is_that_of_optuna():
    """A loop over Optuna's MedianPruner as the oracle: whether a seventh run stops after each epoch."""
    import optuna

    random = np.random.default_rng(0)
    for _ in range(20):
        values = random.integers(10, 40, (7, 5)).astype(float)
        study = optuna.create_study(direction="maximize")
        for run in values[:6]:
            known = dict(enumerate(run, 1))
            study.add_trial(optuna.trial.create_trial(value=run[-1], intermediate_values=known))
        curves = pd.DataFrame(
            {"cell_id": f"run{number}", "term": "top1", "epoch": epoch, "value": value}
            for number, run in enumerate(values[:6])
            for epoch, value in enumerate(run, 1)
        )
        floor = floors(curves, [f"run{number}" for number in range(6)])
        pruner, reported = optuna.pruners.MedianPruner(), {}
        for epoch, value in enumerate(values[6], 1):
            reported[epoch] = value
            trial = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(reported)
            )
            assert (max(values[6][:epoch]) < floor[epoch]) == pruner.prune(study, trial)
    assert floors(curves, ["run0", "run1", "run2", "run3"]) == {}


@pytest.mark.slow
def test_killed_in_the_middle_it_gives_the_same_trials(place, tmp_path, wait_for):
    command = [*TUNE, "--methods", "kd,dkd", "--trials", "6", "--batch", "2", "--epochs", "20", "--jobs", "2"]
    process = spawn(*command, cwd=place)
    wait_for(lambda: (place / "results" / "tiny.tuning.csv").exists(), "a trial", 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert kdbench(*command, cwd=place).code == 0
    whole = make(tmp_path / "whole")
    assert kdbench(*command[:-2], cwd=whole).code == 0
    trials = [read_trials(folder / "results" / "tiny.tuning.csv") for folder in (place, whole)]
    pd.testing.assert_frame_equal(
        *(each[TRIAL].sort_values(["method", "trial"], ignore_index=True) for each in trials)
    )
    assert len(trials[0]) == 12
    tuned = [(folder / "results" / "tiny.tuned.toml").read_text() for folder in (place, whole)]
    assert tuned[0] == tuned[1]


@pytest.mark.slow
def test_two_commands_at_once_share_the_trials(place, tmp_path):
    """None is lost and none doubled; they are those of one command alone."""
    command = [
        *TUNE,
        "--methods",
        "kd,dkd",
        "--trials",
        "6",
        "--batch",
        "2",
        "--epochs",
        "20",
        "--seeds",
        "0-1",
    ]
    processes = [spawn(*command, cwd=place) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert ", large -> small, seed " in said  # it trained some of them
    whole = make(tmp_path / "whole")
    assert kdbench(*command, cwd=whole).code == 0
    trials = [read_trials(folder / "results" / "tiny.tuning.csv") for folder in (place, whole)]
    pd.testing.assert_frame_equal(
        *(each[TRIAL].sort_values(["method", "trial"], ignore_index=True) for each in trials)
    )
    assert store.read(place / "results" / "tiny.trials.csv")["cell_id"].is_unique


def test_teacher_split_trains_one_without_the_holdout(place):
    """An import may have seen the images: it is not used, and the one that is used is listed beside it."""
    suite = ["--suite", "tiny.toml", "--data-dir", "data"]
    weights = str(place / "teachers" / "large.pth")
    assert kdbench("teachers", "import", weights, "--name", "large", *suite, cwd=place).code == 0
    common = [*suite, "--methods", "kd", "--trials", "1", "--epochs", "1"]
    done = kdbench("tune", *common, "--teacher-split", cwd=place)
    assert done.code == 0, done.err
    assert "may have seen the holdout images" not in done.err
    (row,) = store.read(place / "results" / "tiny.trials.csv").to_dict("records")
    listed = kdbench("teachers", "list", *suite, "--split", "holdout", cwd=place).out.splitlines()
    (mine,) = [line for line in listed if row["teacher_id"] in line]
    (imported,) = [line for line in listed if line.startswith("*") and "large" in line]
    assert mine != imported


def test_tune_then_run_then_report(place):
    done = kdbench(*TUNE, "--methods", "kd", "--trials", "2", "--epochs", "1", cwd=place)
    assert done.code == 0, done.err
    assert "large:small" in done.out
    assert "may have seen the holdout images" in done.err
    ran = kdbench(
        *RUN, "--methods", "ce,kd", "--epochs", "1", "--params", "results/tiny.tuned.toml", cwd=place
    )
    assert ran.code == 0, ran.err
    rows = pd.read_csv(place / "results" / "tiny.csv")
    assert set(rows["variant"].dropna()) <= {"tuned (2 trials)"}
    report = kdbench("report", cwd=place)
    assert report.code == 0, report.err
    assert {folder.name for folder in (place / "reports").iterdir() if folder.is_dir()} == {"tiny", "_assets"}
