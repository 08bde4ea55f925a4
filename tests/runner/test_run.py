"""The driver on 64 images: out of memory, out of time, rows, other processes."""

import dataclasses
import json
import math
import os
import socket
import time
from datetime import datetime

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.results import store
from kdbench.runner import record as recording
from kdbench.runner import run as driver
from kdbench.runner.executors import base
from kdbench.runner.heartbeat import Beat
from kdbench.runner.paths import Paths
from kdbench.train.cohort import train_cohort
from kdbench.utils import locks
from tests.support.heard import Heard
from tests.support.loops import After


def _raise(*args):
    raise ValueError("on purpose")


@pytest.fixture
def drive(lab):
    """`run` on the laboratory's suite file with its teacher's weights; what was said is in ``drive.said``."""
    weights = lab.folder / "weights"
    weights.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), weights / "teacher.pth")
    heard = Heard()

    def run(*methods, replaced=(), **options):
        usual = {
            "data_dir": lab.data, "teacher_weights": weights, "results": lab.folder / "results", "device": "cpu",
            "progress": heard,
        }  # fmt: skip
        return driver.run(lab.suite_file(*replaced), methods, **(usual | options))

    run.said = heard.said
    return run


def test_out_of_memory_halves_the_cohort_until_it_fits(drive, lab, monkeypatch):
    sizes = []

    def tight(job, progress, stop):
        sizes.append(len(job.cells))
        if len(job.cells) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return train_cohort(job, progress, stop)

    monkeypatch.setattr(base, "train_cohort", tight)
    outcome = drive("ce", "kd", "dkd", "ctkd", seeds=[0])
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert outcome.exit_code == 0
    assert sorted(outcome.rows["method"]) == ["ce", "ctkd", "dkd", "kd"]
    assert set(outcome.rows["status"]) == {"ok"}
    assert any("out of memory with 4 students side by side" in text for text in drive.said)


def test_a_cell_that_does_not_fit_is_recorded_and_retried(drive, lab, monkeypatch):
    full = True

    def tight(job, progress, stop):
        if full and any(cell.method == "dkd" for cell in job.cells):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return train_cohort(job, progress, stop)

    monkeypatch.setattr(base, "train_cohort", tight)
    outcome = drive("kd", "dkd")
    found = outcome.rows.set_index("method")
    assert (found.loc["kd", "status"], found.loc["dkd", "status"]) == ("ok", "oom")
    assert found.loc["dkd", "error"] == "CUDA out of memory."
    assert outcome.exit_code == 3
    full = False
    outcome = drive("kd", "dkd")
    assert outcome.exit_code == 0
    assert sorted(outcome.rows["attempt"]) == [1, 2]


def test_out_of_memory_on_the_way_loses_no_epoch(drive, lab, monkeypatch):
    """Nothing of the method: what was trained before goes on, with the numbers of a whole run."""
    epochs, whole = {"epochs": 6}, drive("kd", results=lab.folder / "whole", epochs=6)

    def stopped(job, progress, stop):
        train_cohort(dataclasses.replace(job, save_every=0.0), progress, After(3 * 4 + 2))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(base, "train_cohort", stopped)
    assert drive("kd", **epochs).rows["status"].tolist() == ["oom"]
    monkeypatch.setattr(base, "train_cohort", train_cohort)
    outcome = drive("kd", **epochs)
    assert any("continuing after epoch" in text for text in drive.said)
    assert outcome.rows["final_loss"].iloc[-1] == whole.rows["final_loss"].item()


def test_out_of_memory_late_after_a_neighbour_diverged(drive, lab):
    """The closed cell's checkpoint is older than its neighbour's: they must not go on from one position."""

    class Diverges(Method):
        def loss(self, batch, student, teacher, modules):
            factor = math.nan if batch.epoch > 120 else 1.0
            return {"ce": factor * cross_entropy(student.logits, batch.target)}

    hungry = []

    class Hungry(Method):
        def loss(self, batch, student, teacher, modules):
            if batch.epoch > 180 and not hungry:
                hungry.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Diverges)
    registry.register(Hungry)
    outcome = drive("kd", "diverges", "hungry", epochs=4)
    assert hungry == [1]
    found = outcome.rows.set_index("method")
    assert found["status"].to_dict() == {"kd": "ok", "diverges": "diverged", "hungry": "ok"}
    assert found.loc["hungry", "epochs_done"] == 4
    again = drive("hungry", epochs=4, results=lab.folder / "alone").rows.set_index("method")
    for key in ("top1", "nll", "final_loss"):
        assert found.loc["hungry", key] == again.loc["hungry", key]


def test_rows_have_the_planned_ids_and_every_column(drive, lab):
    outcome = drive("ce", "kd")
    rows = store.read(lab.folder / "results" / "tiny.csv")
    assert set(rows["cell_id"]) == {cell.id for cell in outcome.cells}
    kd = rows.set_index("method").loc["kd"]
    empty = {column for column in store.COLUMNS if column != "method" and kd.isna()[column]}
    may_be_empty = "variant teacher_expected teacher_cache error cuda git_commit git_dirty"
    assert empty <= set(may_be_empty.split())
    assert (kd["split"], kd["teacher"], kd["student"], kd["suite"]) == ("test", "teacher", "student", "tiny")
    assert kd["teacher_id"] == lab.teacher.id
    curves = store.read(lab.folder / "results" / "tiny.curves.csv", store.CURVE_COLUMNS)
    assert set(curves["run_id"]) == set(rows["run_id"])
    with np.load(lab.folder / "results" / "tiny.details" / f"{kd['cell_id']}.npz") as details:
        assert details["confusion"].sum() == 24
    students = lab.folder / "results" / ".work" / "students"
    assert {f.stem for f in students.iterdir()} == set(rows["cell_id"])
    assert list((lab.folder / "results" / ".work").glob("*.pt")) == []


def test_started_is_the_start(drive, lab):
    """Of the run that made the row, not the moment when it was written."""

    calls = []

    class Sleepy(Method):
        def loss(self, batch, student, teacher, modules):
            if len(batch.target) == lab.suite.recipe.batch_size:  # not the trial before training
                calls.append(time.time())
            time.sleep(0.2)
            return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(Sleepy)
    begun = time.time()
    drive("sleepy")
    (row,) = store.read(lab.folder / "results" / "tiny.csv").to_dict("records")
    started = datetime.fromisoformat(row["started_utc"]).timestamp()
    assert int(begun) <= started <= calls[0]


def test_what_is_done_is_not_done_again(drive, lab, monkeypatch):
    drive("ce", "kd")
    before = (lab.folder / "results" / "tiny.csv").read_bytes()
    monkeypatch.setattr(base, "train_cohort", _raise)
    assert drive("ce", "kd").exit_code == 0
    assert (lab.folder / "results" / "tiny.csv").read_bytes() == before


def test_force_adds_a_row_with_the_same_numbers(drive, lab):
    drive("kd")
    assert drive("kd", force=True).exit_code == 0
    rows = store.read(lab.folder / "results" / "tiny.csv")
    assert rows["attempt"].tolist() == [1, 2]
    for key in ("cell_id", "top1", "nll", "ece", "final_loss"):
        assert rows[key].nunique() == 1


def test_a_full_disk_in_a_cohort_costs_no_complete_cell(drive, lab, monkeypatch):
    """The second of three students cannot be saved: the first one has its row, the others go on from checkpoints."""
    save, calls, folder = recording.save_weights, [], lab.folder / "results"

    def full(path, *more):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        save(path, *more)

    monkeypatch.setattr(recording, "save_weights", full)
    with pytest.raises(KdbenchError, match=r"cannot write .*No space left on device"):
        drive("ce", "kd", "dkd")
    before = (folder / "tiny.csv").read_bytes()
    assert store.read(folder / "tiny.csv")["method"].tolist() == ["ce"]
    assert len(list((folder / ".work").glob("*.pt"))) == 2
    monkeypatch.undo()
    assert drive("ce", "kd", "dkd").exit_code == 0
    assert (folder / "tiny.csv").read_bytes().startswith(before)
    assert store.read(folder / "tiny.csv")["attempt"].tolist() == [1, 1, 1]


def test_what_another_process_trains_is_left_to_it(drive, lab):
    (kd,) = drive("kd", max_hours=0).cells
    with locks.held(lab.folder / "results" / ".work" / "locks", [kd.id]):
        outcome = drive("ce", "kd")
    assert outcome.elsewhere == 1
    assert set(outcome.rows["method"]) == {"ce"}
    assert any("1 cells are being trained by another process" in note for note in outcome.notes)


def test_out_of_time_saves_and_says_so(drive, lab):
    outcome = drive("kd", max_hours=0)
    assert outcome.exit_code == 3
    assert outcome.rows.empty
    assert any("type the same command to go on" in note for note in outcome.notes)
    assert drive("kd").exit_code == 0


def test_time_that_runs_out_after_the_last_cell_is_no_failure(drive, lab, monkeypatch):
    """The clock strikes while the last row is written: all is done, and the exit code says so."""
    late = []
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + (1e6 if late else 0.0))
    original = driver.record
    monkeypatch.setattr(driver, "record", lambda *a: late.append(1) or original(*a))
    outcome = drive("kd", max_hours=1.0)
    assert outcome.rows["status"].tolist() == ["ok"]
    assert outcome.exit_code == 0
    assert not any("stopped before the end" in note for note in outcome.notes)


def test_the_note_of_a_process_that_died_elsewhere_is_no_training(drive, lab):
    """Its kernel has released the lock, but nobody could remove the note."""
    outcome = drive("kd", max_hours=1e-9)
    folder = outcome.paths.locks
    (cell,) = outcome.cells
    note = {"pid": 1, "host": "another", "since": time.time()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{cell.id}.lock").write_text(json.dumps(note))
    outcome = drive("kd", max_hours=1e-9)
    assert (outcome.elsewhere, outcome.exit_code) == (0, 3)


def test_a_process_that_trains_for_another_suite_does_not_complete_this_one(drive, lab, monkeypatch):
    (cell,) = drive("kd", max_hours=1e-9).cells
    paths = Paths(lab.folder / "results", "tiny")
    beat = Beat(**{**dict.fromkeys(Beat.__annotations__, 0), "suite": "other", "pid": os.getpid()})
    beat = dataclasses.replace(beat, host=socket.gethostname())
    with locks.held(paths.locks, [cell.id]):
        assert drive("kd", max_hours=1e-9).elsewhere == 1
        monkeypatch.setattr(driver, "beating", lambda folder: [beat])
        outcome = drive("kd", max_hours=1e-9)
        assert (outcome.elsewhere, outcome.exit_code) == (0, 3)


def test_curves_that_cannot_take_more_are_told_before_anything_trains(drive, lab):
    curves = Paths(lab.folder / "results", "tiny").curves
    curves.parent.mkdir()
    curves.write_text(",cell_id,run_id,epoch,term,value\n")
    with pytest.raises(KdbenchError, match=r"delete the column without a name, move it aside"):
        drive("kd")
    assert not curves.with_name("tiny.csv").exists()


def test_finished_rows_of_another_teacher_are_told(drive, lab):
    drive("kd")
    teacher = lab.folder / "weights" / "teacher.pth"
    state = torch.load(teacher)
    torch.save({name: value + 1e-6 for name, value in state.items()}, teacher)
    drive("kd", "ce")
    (said,) = [
        text for text in drive.said if "finished rows with teacher teacher are of other weights" in text
    ]
    assert "kdbench teachers import" in said


def test_damaged_logits_of_a_teacher_are_measured_again(drive, lab):
    drive("kd")
    (file,) = (lab.folder / "results" / ".work" / "teachers").glob("*.logits.safetensors")
    file.write_bytes(b"")
    assert drive("dkd").exit_code == 0
    assert file.stat().st_size
