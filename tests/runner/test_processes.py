"""Cohorts side by side in several processes: the same numbers, and nothing is lost whoever dies."""

import dataclasses
import functools
import os
import signal
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.plan.cohorts import form_cohorts
from kdbench.results import store
from kdbench.results.attempts import Attempts
from kdbench.runner.executors.base import Done
from kdbench.runner.executors.processes import Processes
from kdbench.runner.inputs import find_inputs
from kdbench.runner.missing import find_missing, untried
from kdbench.runner.run import run
from kdbench.runner.stop import Stop
from kdbench.runner.training import Locks, train
from kdbench.train.callbacks import Progress
from kdbench.train.job import Result
from kdbench.utils import locks
from tests.support.cli_process import spawn
from tests.support.heard import Heard, Lanes

STARTING = 300  # seconds that a process may take to import torch on a busy machine


def workers(driver):
    """The processes that ``driver`` has started and that import torch, so train."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = status.read_text("utf-8").partition("PPid:")[2].split()[0]
            maps = (status.parent / "maps").read_text("utf-8") if int(parent) == driver else ""
        except OSError:  # it has ended
            continue
        if "libtorch" in maps:
            found.append(int(status.parent.name))
    return found


@pytest.fixture
def options(lab):
    """Of `run`: ce and kd on two seeds by two processes."""
    weights = lab.folder / "weights"
    weights.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), weights / "teacher.pth")
    return {
        "suite": lab.suite_file(), "methods": ["ce", "kd"], "data_dir": lab.data, "teacher_weights": weights,
        "results": lab.folder / "results", "device": "cpu", "seeds": [0, 1], "jobs": 2,
    }  # fmt: skip


def rows_of(options):
    return store.read(options["results"] / "tiny.csv")


def test_two_processes_share_the_work_and_give_the_same_numbers(options, lab):
    lanes = Lanes()
    both = run(**options, progress=lanes)
    assert (both.exit_code, both.elsewhere) == (0, 0)
    assert [lanes.lanes[number].steps for number in (0, 1)] == [8, 8]
    assert workers(os.getpid()) == []
    alone = run(**{**options, "jobs": 1, "results": lab.folder / "alone"}, progress=Progress())
    columns = ["cell_id", "status", "top1", "nll", "agree_teacher", "final_loss"]
    one, two = (each.rows.sort_values("cell_id")[columns].to_csv(index=False) for each in (alone, both))
    assert one == two
    assert both.rows[["executor", "jobs"]].drop_duplicates().values.tolist() == [["processes", 2]]
    assert alone.rows[["executor", "jobs"]].drop_duplicates().values.tolist() == [["serial", 1]]


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_cohort_nothing(options):
    killed = []

    def kill():
        if not killed:
            killed.append(workers(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    lanes = Lanes(kill)
    outcome = run(**options, epochs=20, progress=lanes)
    assert killed
    assert outcome.exit_code == 0
    assert outcome.rows["status"].tolist() == ["ok"] * 4
    assert rows_of(options)["attempt"].tolist() == [1] * 4
    assert [text for text in lanes.said if "died; they continue" in text]


class Dying:
    """An executor whose processes die."""

    name, slots, jobs = "processes", 2, 2

    def __init__(self):
        self.tried = []

    def submitted(self, cells):
        return []

    def submit(self, job):
        self.tried.append(job)
        future = Future()
        future.set_exception(BrokenProcessPool("killed"))
        return future

    def wait(self, running):
        return list(running)


def _results(lab, executor, say, **selection):
    """The results of the missing cells of a selection, trained by ``executor``."""
    workspace = lab.open(**selection)
    inputs, paths = find_inputs(workspace, print), workspace.paths
    missing = find_missing(store.read(paths.rows), inputs.cells())
    with Locks(paths.locks, functools.partial(untried, missing, Attempts(paths.rows))) as held:
        cohorts = form_cohorts(missing.cells, {})
        done = train(cohorts, inputs.job, held, executor, paths.work, say, Stop())
        results = [result for each in done for result in each.results]
    assert locks.running(paths.locks) == {}
    return results


def test_a_cohort_that_kills_every_process_is_recorded(lab):
    """Each of the two cohorts is tried four times; other cohorts are not held up."""
    heard, executor = Heard(), Dying()
    results = _results(lab, executor, heard.say, seeds=[0, 1], methods=["ce"])
    assert sorted(result.cell.seed for result in results) == [0, 1]
    assert [result.row["error"] for result in results] == ["its process died 4 times, at last: killed"] * 2
    assert len(executor.tried) == 8
    assert sum("died; they continue" in text for text in heard.said) == 6


class Taken(Dying):
    """An executor whose machines are taken away six times."""

    def submit(self, job):
        self.tried.append(job)
        future = Future()
        if len(self.tried) <= 6:
            rows = [Result(cell, {"status": "interrupted"}) for cell in job.cells if cell.method != "tfkd"]
            finished = [Result(cell, {"status": "diverged"}) for cell in job.cells if cell.method == "tfkd"]
            future.set_result(Done([*finished, *rows], True, {}))
        else:
            future.set_result(Done([Result(cell, {"status": "ok"}) for cell in job.cells], False, {}))
        return future


def test_a_machine_that_is_taken_away_is_no_death(lab):
    heard, executor = Heard(), Taken()
    (result,) = _results(lab, executor, heard.say, seeds=[0], methods=["ce"])
    assert result.row["status"] == "ok"
    assert len(executor.tried) == 7
    assert heard.said == ["the machine that trained 1 cells is taken away; they go on elsewhere"] * 6


def test_what_is_final_when_a_machine_is_taken_away_is_kept(lab):
    heard, executor = Heard(), Taken()
    results = _results(lab, executor, heard.say, seeds=[0], methods=["ce", "tfkd"])
    assert [(each.cell.method, each.row["status"]) for each in results] == [
        ("tfkd", "diverged"),
        ("ce", "ok"),
    ]
    assert [len(job.cells) for job in executor.tried] == [2] + [1] * 6


class Deadly(Dying):
    """An executor whose process dies on every cohort with tfkd."""

    def submit(self, job):
        if "tfkd" in [cell.method for cell in job.cells]:
            return super().submit(job)
        self.tried.append(job)
        future = Future()
        future.set_result(Done([Result(cell, {"status": "ok"}) for cell in job.cells], False, {}))
        return future


def test_a_method_that_kills_its_process_takes_no_other_with_it(lab):
    """Four tries of three students, then of halves: 1 + 2, and of the half with tfkd."""
    heard, executor = Heard(), Deadly()
    results = _results(lab, executor, heard.say, seeds=[0], methods=["ce", "tfkd", "uskd"])
    assert {each.cell.method: each.row["status"] for each in results} == {
        "ce": "ok",
        "uskd": "ok",
        "tfkd": "error",
    }
    assert "the process that trained 3 cells died 4 times; training them in two halves" in heard.said


def test_deaths_count_from_where_training_got_to(lab, monkeypatch):
    """A process that dies once an epoch gets to the end, however many epochs there are."""
    epochs = iter(range(100))

    def positions(work, cells):
        epoch = next(epochs)
        return {cell.id: (epoch, 0) for cell in cells}

    class Mortal(Dying):
        def submit(self, job):
            if len(self.tried) < 9:
                return super().submit(job)
            future = Future()
            future.set_result(Done([Result(cell, {"status": "ok"}) for cell in job.cells], False, {}))
            return future

    monkeypatch.setattr("kdbench.runner.training.positions", positions)
    (result,) = _results(lab, Mortal(), print, seeds=[0], methods=["ce"])
    assert result.row["status"] == "ok"


def _command(options, lab):
    paths = {
        "data-dir": lab.data,
        "teacher-weights": options["teacher_weights"],
        "results": options["results"],
    }
    named = [f"--{name}={path}" for name, path in paths.items()]
    return ["run", "--suite=tiny.toml", "--seeds=0-1", "--jobs=2", "--epochs=3000", "--device=cpu", *named]


def _checkpoints(options):
    return list((options["results"] / ".work").glob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_every_process_and_records_it(options, lab, wait_for, number, code):
    driver = spawn(*_command(options, lab), cwd=lab.folder)
    wait_for(lambda: len(_checkpoints(options)) == 4, "four checkpoints", STARTING)
    driver.send_signal(number)
    _, err = driver.communicate()
    assert driver.returncode == code
    assert "Traceback" not in err
    assert rows_of(options)["status"].tolist() == ["interrupted"] * 4
    assert len(_checkpoints(options)) == 4


@pytest.mark.slow
def test_processes_save_and_leave_when_their_driver_dies(options, lab, wait_for):
    driver = spawn(*_command(options, lab), cwd=lab.folder)
    wait_for(lambda: len(_checkpoints(options)) == 4, "four checkpoints", STARTING)
    left = workers(driver.pid)
    assert len(left) == 2
    driver.kill()
    driver.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "their end", STARTING)
    assert len(_checkpoints(options)) == 4
    assert not (options["results"] / "tiny.csv").exists()


def test_a_method_without_a_file_is_refused(options, scratch_registry):
    class Local(Method):
        """Defined in a test, so in no plug-in."""

    with pytest.raises(KdbenchError, match=r"other processes cannot load the method local.*jobs=1"):
        run(**{**options, "methods": ["ce", Local]})


def test_there_is_at_least_one_process():
    with pytest.raises(KdbenchError, match="jobs must be a whole number of at least 1, got 0"):
        run(jobs=0)


LARGE = """
import torch
from kdbench.method import Method
from kdbench.registry import register


@register
class Large(Method):
    def build(self, context):
        raise torch.OutOfMemoryError("CUDA: full")
"""


@pytest.mark.slow
def test_one_process_of_its_own_path_and_its_errors(tmp_path, monkeypatch, lab):
    """Started in a folder with a random.py, it uses Python's; what does not fit its memory is raised here."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "large.py").write_text(LARGE, "utf-8")
    (tmp_path / "random.py").write_text("raise ValueError('the wrong random')", "utf-8")
    monkeypatch.chdir(tmp_path)
    registry.load(tmp_path / "plugins")
    job = dataclasses.replace(lab.job(lab.cells("ce")), plugins=tmp_path / "plugins")
    with Processes(["cpu", "cpu"], Progress(), lambda: False) as executor:
        future = executor.submit(job)
        assert executor.wait([future]) == [future]
        done = future.result()
        assert ([result.row["status"] for result in done.results], done.stopped) == (["ok"], False)
        assert done.source["threads"] == 1
        future = executor.submit(dataclasses.replace(job, cells=tuple(lab.cells("large"))))
        executor.wait([future])
        with pytest.raises(torch.OutOfMemoryError, match="CUDA: full"):
            future.result()
