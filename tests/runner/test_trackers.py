"""Trackers get the numbers of the curves and rows, offline; what goes wrong in them never stops a training."""

import itertools
import subprocess
import sys

import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.results.schema import COLUMNS
from kdbench.runner.options import RunOptions
from kdbench.runner.trackers import KINDS, open_trackers
from kdbench.runner.trackers.base import Tracker
from kdbench.utils.status import Status
from tests.support.cli_process import ENVIRONMENT, kdbench, refused
from tests.support.tiny import RUN, make, rows

CURVE = [(1, "loss", 2.0), (1, "top1", 30.0), (2, "loss", 1.0), (3, "loss", 0.5), (3, "top1", 50.0)]
EPOCHS = {
    epoch: {name: value for _, name, value in points}
    for epoch, points in itertools.groupby(CURVE, key=lambda point: point[0])
}
ROW = {"status": "ok", "error": None, "top1": 50.0, "nll": 1.5, "deterministic": True}


@pytest.fixture
def cell(lab):
    (cell,) = lab.cells("kd")
    return cell


class Notebook(Tracker):
    """Notes what it is called with; handles are numbers."""

    name = "notebook"
    broken = ""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []

    def start(self, cell, handle):
        self.calls.append(("open", handle))
        return cell.id, handle or "7"

    def log(self, run, epoch, values):
        if self.broken:
            raise ConnectionError(self.broken)
        self.calls.append(("log", epoch, values))

    def close(self, run, cell, status, result):
        self.calls.append(("close", status, result))


@pytest.fixture
def notebook(tmp_path):
    return Notebook(tmp_path, pytest.fail)


def row(**changes):
    return {**dict.fromkeys(COLUMNS), **ROW, **changes}


def train(tracker, cell, epochs=(1, 2, 3), done=0):
    tracker.begin([cell], 3, 10, done * 10)
    for epoch in epochs:
        tracker.epoch(epoch, {cell.id: EPOCHS[epoch]})


def test_every_epoch_and_the_row_are_logged_once(notebook, cell):
    train(notebook, cell)
    notebook.record(cell, row(), CURVE)
    assert notebook.calls[0] == ("open", "")
    assert notebook.calls[1:4] == [("log", epoch, EPOCHS[epoch]) for epoch in (1, 2, 3)]
    assert notebook.calls[4:] == [("close", Status.OK, {"top1": 50.0, "nll": 1.5})]


def test_a_cell_that_continues_keeps_its_run(notebook, cell, tmp_path):
    train(notebook, cell, [1])
    notebook.record(cell, row(status="interrupted"), CURVE[:2])
    again = Notebook(tmp_path, pytest.fail)
    train(again, cell, [2, 3], done=1)
    again.record(cell, row(), CURVE)
    assert again.calls[0] == ("open", "7")
    assert [call[1] for call in again.calls if call[0] == "log"] == [2, 3]
    forced = Notebook(tmp_path, pytest.fail)
    train(forced, cell)
    assert forced.calls[0] == ("open", "")


def test_what_trained_elsewhere_is_logged_from_its_curve(notebook, cell):
    notebook.record(cell, row(), CURVE)
    assert notebook.calls[1:4] == [("log", epoch, EPOCHS[epoch]) for epoch in (1, 2, 3)]


def test_a_cohort_that_is_tried_again_logs_nothing_twice(notebook, cell):
    train(notebook, cell, [1, 2])
    train(notebook, cell, [2, 3], done=1)
    assert [call[1] for call in notebook.calls if call[0] == "log"] == [1, 2, 3]


def test_teachers_are_not_tracked(notebook, cell):
    notebook.plan([[cell]], "teacher large")
    train(notebook, cell)
    assert notebook.calls == []
    notebook.plan([[cell]])
    train(notebook, cell, [1])
    assert notebook.calls


def test_a_tracker_that_fails_is_named_once_and_left_out(tmp_path, cell):
    said = []
    tracker = Notebook(tmp_path, said.append)
    tracker.broken = "no route to host"
    train(tracker, cell)
    tracker.record(cell, row(), CURVE)
    assert said == ["--track notebook fails and is left out from here on: no route to host"]


def test_unknown_trackers_are_refused():
    assert RunOptions(track="wandb, mlflow,wandb").trackers == ["wandb", "mlflow"]
    with pytest.raises(KdbenchError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        RunOptions(track="tensorbord")


@pytest.mark.parametrize("name", KINDS)
def test_a_package_that_is_not_installed_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KdbenchError, match=rf"pip install 'kdbench\[{name}\]'"):
        open_trackers([name], tmp_path, pytest.fail)


def test_no_tracker_is_imported_without_the_option():
    code = (
        "import sys, kdbench.runner.trackers\n"
        "sys.exit(bool({'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=120).returncode == 0


# --- the real ones ---


@pytest.mark.parametrize(
    ("name", "variables", "words"),
    [
        ("wandb", {"HOME": "nowhere", "WANDB_API_KEY": ""}, "`wandb login`, or set WANDB_MODE=offline"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "nosuch://server"}, "cannot open nosuch://server"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(name, variables, words, tmp_path, monkeypatch):
    pytest.importorskip(name)
    for key, value in variables.items():
        monkeypatch.setenv(key, value.replace("nowhere", str(tmp_path)))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(KdbenchError, match=words):
        open_trackers([name], tmp_path, pytest.fail)


def test_tensorboard_shows_the_curves_of_a_run(tmp_path):
    pytest.importorskip("tensorboard", reason="needs kdbench[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = make(tmp_path / "place")
    done = kdbench(*RUN, "--methods", "kd", "--track", "tensorboard", cwd=place)
    assert done.code == 0, done.err
    (folder,) = (place / "results/track/tensorboard/tiny/kd_large_-_small_seed_0").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    curves = pd.read_csv(place / "results" / "tiny.curves.csv")
    for term, points in curves.groupby("term"):
        logged = [(event.step, event.value) for event in events.Scalars(term)]
        assert logged == [
            (epoch, pytest.approx(value)) for _, epoch, value in points[["epoch", "value"]].itertuples()
        ]
    assert events.Scalars("result/top1")[0].value == pytest.approx(rows(place)["top1"].iloc[0])
    assert not list((place / "results/track/tensorboard/unfinished").iterdir())


def test_wandb_writes_its_offline_files(tmp_path, cell, monkeypatch, wait_for):
    pytest.importorskip("wandb", reason="needs kdbench[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tracker,) = open_trackers(["wandb"], tmp_path, pytest.fail)
    train(tracker, cell)
    tracker.record(cell, row(), CURVE)
    (file,) = (tmp_path / "wandb" / "wandb").glob(f"offline-run-*-{cell.id}-*/run-{cell.id}-*.wandb")
    for text in (b"top1", b"kd, teacher -> student, seed 0", b"kd.temperature"):
        wait_for(
            lambda text=text: text in file.read_bytes(), f"{text} in {file}"
        )  # a process of its own writes it


def test_mlflow_holds_every_epoch_and_the_row(tmp_path, cell, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs kdbench[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "files").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tracker,) = open_trackers(["mlflow"], tmp_path, pytest.fail)
    train(tracker, cell, [1])
    tracker.record(cell, row(status="interrupted"), CURVE[:2])
    (tracker,) = open_trackers(["mlflow"], tmp_path, pytest.fail)
    train(tracker, cell, [2, 3], done=1)
    tracker.record(cell, row(), CURVE)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("kdbench tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "kd, teacher -> student, seed 0"
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "kd"
    assert run.data.metrics["result.top1"] == 50.0
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    assert history == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_a_missing_tracker_is_one_sentence_before_training(tmp_path):
    place = make(tmp_path / "place")
    refused(kdbench(*RUN, "--track", "neptune", cwd=place), "unknown tracker 'neptune'", "tensorboard")
    assert not (place / "results").exists()
