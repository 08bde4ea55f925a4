"""Workers and drivers that die: no finished row is lost, none is trained twice, and the numbers are the same."""

import importlib.util

import pytest

from kdbench.results import store
from kdbench.runner.run import run
from kdbench.train.callbacks import Progress
from tests.support.cli_process import spawn
from tests.support.heard import Heard
from tests.support.tiny import NUMBERS

pytestmark = pytest.mark.slow
STARTING = 300  # seconds that a process may take to import torch on a busy machine

MORTAL = """
import ctypes, os, signal
from pathlib import Path
from torch.nn import functional as F
from kdbench.method import Method
from kdbench.registry import register

DIED = Path(__file__).parent / "died"


@register
class Mortal(Method):
    def loss(self, batch, student, teacher, modules):
        if 0.5 <= batch.progress < 0.9 and not DIED.exists():  # not in the trial of the first and the last epoch
            DIED.touch()
            {death}
        return {{"ce": F.cross_entropy(student.logits, batch.target)}}
"""
DEATHS = {
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "segfault": "ctypes.string_at(0)",
}
EXECUTORS = {
    "processes": {"executor": "processes", "jobs": 2},
    "slurm": {"executor": "slurm", "slurm": "cluster=local"},
}


def numbers(rows):
    return rows.sort_values("cell_id")[NUMBERS].to_csv(index=False)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_that_dies_goes_on_from_its_checkpoint(options, lab, executor, death):
    """It dies in the middle of training, inside a plug-in's loss; its cohort mates go on with it."""
    if executor == "slurm" and not importlib.util.find_spec("submitit"):
        pytest.skip("needs kdbench[slurm]")
    plugins = lab.folder / "plugins"
    plugins.mkdir()
    (plugins / "mortal.py").write_text(MORTAL.format(death=DEATHS[death]), "utf-8")
    choice = {**options, "methods": ["ce", "kd", "mortal"], "plugins": plugins, "epochs": 4}
    heard = Heard()
    outcome = run(**choice, **EXECUTORS[executor], progress=heard)
    assert outcome.exit_code == 0, heard.said
    assert (plugins / "died").exists()
    assert sum("died; they continue from their last checkpoint" in text for text in heard.said) == 1
    assert store.read(options["results"] / "tiny.csv")["attempt"].tolist() == [1] * 6
    alone = run(**{**choice, "results": lab.folder / "alone"}, progress=Progress())
    assert numbers(alone.rows) == numbers(outcome.rows)


def test_a_killed_driver_of_processes_goes_on(options, lab, wait_for):
    """Killed after its first rows; what they say stays byte for byte, and the rest is trained once."""
    seeds, rows = "0-3", options["results"] / "tiny.csv"
    folders = ("data_dir", "teacher_weights", "results")
    named = [f"--{name.replace('_', '-')}={options[name]}" for name in folders]
    command = [
        "run",
        "--suite=tiny.toml",
        f"--seeds={seeds}",
        "--jobs=2",
        "--epochs=40",
        "--device=cpu",
        *named,
    ]
    driver = spawn(*command, cwd=lab.folder)
    wait_for(lambda: rows.exists() and len(rows.read_bytes().splitlines()) > 1, "a row", STARTING)
    driver.kill()
    driver.communicate()
    before = rows.read_bytes()
    choice = {**options, "seeds": seeds, "epochs": 40}
    outcome = run(**choice, jobs=2, progress=Progress())
    assert outcome.exit_code == 0
    assert rows.read_bytes().startswith(before)
    assert store.read(rows)["attempt"].tolist() == [1] * 8
    alone = run(**{**choice, "results": lab.folder / "alone"}, progress=Progress())
    assert numbers(alone.rows) == numbers(outcome.rows)
