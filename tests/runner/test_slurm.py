"""Jobs by submitit, its local engine in place of a cluster: the same numbers, and they outlive their driver."""

import dataclasses
import os
import signal

import pytest

pytest.importorskip("submitit", reason="needs kdbench[slurm]")

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner.executors.slurm import Slurm, Task
from kdbench.runner.heartbeat import Heartbeat
from kdbench.runner.options import RunOptions
from kdbench.runner.run import run
from kdbench.runner.status import status
from kdbench.runner.submitted import read_notes
from kdbench.train.callbacks import Progress
from tests.support.cli_process import spawn
from tests.support.heard import Heard
from tests.support.tiny import NUMBERS

STARTING = 300  # seconds that a process may take to import torch on a busy machine


def notes(options):
    return read_notes(options["results"] / ".work" / "slurm")


def test_what_macos_puts_beside_a_note_is_none(tmp_path):
    (tmp_path / "7.json").write_text('{"job": "7"}')
    (tmp_path / "._7.json").write_bytes(b"\0\5\x16\7")
    assert read_notes(tmp_path) == [{"job": "7"}]


@pytest.mark.slow
def test_jobs_give_the_numbers_of_one_process(options, lab):
    heard = Heard()
    jobs = run(**options, executor="slurm", slurm="cluster=local", progress=heard)
    assert jobs.exit_code == 0, heard.said
    assert jobs.rows[["executor", "jobs"]].drop_duplicates().values.tolist() == [["slurm", 1]]
    assert notes(options) == []
    alone = run(**{**options, "results": lab.folder / "alone"}, progress=Progress())
    one, two = (each.rows.sort_values("cell_id")[NUMBERS].to_csv(index=False) for each in (alone, jobs))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_the_jobs_of_a_driver_that_ended_are_collected(options, lab, wait_for, number, code):
    """They go on without it; the same command takes them up, and no other executor trains their cells too."""
    folders = {
        "data-dir": lab.data,
        "teacher-weights": options["teacher_weights"],
        "results": options["results"],
    }
    named = [f"--{name}={path}" for name, path in folders.items()]
    command = [
        "run",
        "--suite=tiny.toml",
        "--seeds=0",
        "--methods=ce,kd",
        "--device=cpu",
        "--epochs=40",
        *named,
    ]
    driver = spawn(*command, "--executor=slurm", "--slurm=cluster=local", cwd=lab.folder)
    wait_for(lambda: notes(options), "a job", STARTING)
    driver.send_signal(number)
    driver.communicate()
    assert driver.returncode == code
    (note,) = notes(options)
    assert f"job {note['job']}, 2 cells" in status(options["results"])
    other = {**options, "seeds": 0, "epochs": 40}
    with pytest.raises(KdbenchError, match=rf"2 of these cells were submitted as job {note['job']}; .*slurm"):
        run(**other, progress=Progress())
    part = {**other, "methods": ["ce"], "executor": "slurm", "slurm": "cluster=local"}
    with pytest.raises(
        KdbenchError, match=rf"1 of these cells were submitted as job {note['job']}, beside 1 that"
    ):
        run(**part, progress=Progress())
    heard = Heard()
    outcome = run(**other, executor="slurm", slurm="cluster=local", progress=heard)
    assert outcome.exit_code == 0, heard.said
    assert not any("queued" in text for text in heard.said)
    assert store.read(options["results"] / "tiny.csv")["attempt"].tolist() == [1, 1]
    assert notes(options) == []


class Preempting(Heartbeat):
    """Sends this process the signal of a job whose time is over, at its third step."""

    steps = 0

    def step(self, images):
        super().step(images)
        self.steps += 1
        if self.steps == 3:
            os.kill(os.getpid(), signal.SIGUSR2)


def test_a_preempted_job_saves_its_state_and_is_queued(lab, monkeypatch):
    queued = []
    monkeypatch.setattr("kdbench.runner.executors.slurm.Heartbeat", Preempting)
    before = signal.signal(signal.SIGUSR2, lambda number, frame: queued.append(number))
    try:
        task = Task(lab.job(lab.cells("ce")), "cpu")
        done = task()
        assert signal.getsignal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (done.stopped, queued) == (True, [signal.SIGUSR2])
    assert len(list(lab.work.glob("*.pt"))) == 1
    assert task.checkpoint().function is task
    monkeypatch.undo()
    again, alone = task(), lab.using(work="alone").train("ce")["ce"]
    assert again.results[0].row["final_loss"] == alone.row["final_loss"]
    assert not again.stopped


def test_an_error_of_a_job_is_a_value(lab):
    """submitit would hand its text alone."""
    job = dataclasses.replace(lab.job(lab.cells("ce")), data_dir=lab.folder / "nowhere")
    assert isinstance(Task(job, "cpu")(), KdbenchError)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"slurm": "partition=gpu"}, "slurm parameters need the executor slurm"),
        ({"executor": "slurm", "slurm": "partition"}, "slurm takes key=value,key=value"),
        ({"executor": "slurm", "jobs": 2}, "each cohort a job on one device"),
    ],
)
def test_wrong_choices_are_refused_at_once(choice, words):
    with pytest.raises(KdbenchError, match=words):
        RunOptions(**choice)


def test_an_unknown_parameter_is_named(tmp_path):
    with pytest.raises(KdbenchError, match="--slurm does not know partitoin"):
        Slurm(tmp_path, {"cluster": "local", "partitoin": "gpu"}, "cpu", Progress(), lambda: False)


def test_where_there_is_no_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KdbenchError, match=r"cannot start: .*type it where sbatch works"):
        Slurm(tmp_path, {"partition": "gpu"}, "cpu", Progress(), lambda: False)
