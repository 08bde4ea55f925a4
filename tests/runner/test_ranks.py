"""`run(ranks=N)`: the rows of one process; ends, errors and deaths of ranks; and what is refused before training."""

import dataclasses
import signal
from pathlib import Path

import pytest

from kdbench import suites
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner.executors.ranks import GRACE
from kdbench.runner.options import RunOptions
from kdbench.runner.run import run
from kdbench.suites import ModelSpec, Pair
from kdbench.train.callbacks import Progress
from tests.support.cli_process import kdbench, refused, spawn
from tests.support.heard import Heard
from tests.support.tiny import RUN, make, rows

STARTING = 300  # seconds that processes may take to import torch on a busy machine
CLOSE = {
    "top1": 100 / 48,
    "train_top1": 4,
    "final_loss": 0.05,
}  # what rounding may grow to; see test_ranks_equal_one

FAULTY = """
import os, signal
from pathlib import Path
import torch
import torch.distributed
from torch.nn import functional as F
from kdbench.method import Method
from kdbench.registry import register

HERE = Path(__file__).parent


def once_on_one_rank():
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() != 1:
        return False
    done = HERE / "done"
    first = not done.exists()
    done.touch()
    return first


@register
class Faulty(Method):
    def loss(self, batch, student, teacher, modules):
        if batch.progress >= 0.5 and once_on_one_rank():
            {fault}
        return {{"ce": F.cross_entropy(student.logits, batch.target)}}
"""


def with_fault(options, lab, fault):
    plugins = lab.folder / "plugins"
    plugins.mkdir()
    (plugins / "faulty.py").write_text(FAULTY.format(fault=fault), "utf-8")
    return {**options, "methods": ["ce", "kd", "faulty"], "seeds": [0], "plugins": plugins, "epochs": 4}


def close(rows, others):
    rows, others = (each.sort_values("cell_id").reset_index(drop=True) for each in (rows, others))
    assert rows["cell_id"].tolist() == others["cell_id"].tolist()
    for name, by in CLOSE.items():
        assert ((rows[name] - others[name]).abs() <= by).all(), (name, rows[name], others[name])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_rows_are_those_of_one_process(options, lab, ranks):
    outcome = run(**options, ranks=ranks, progress=Progress())
    assert outcome.exit_code == 0
    one = run(**{**options, "results": lab.folder / "alone"}, progress=Progress())
    close(outcome.rows, one.rows)
    assert outcome.rows["device"].str.startswith(f"{ranks} x ").all()


@pytest.mark.slow
def test_a_killed_rank_ends_all_and_they_go_on(options, lab):
    choice = with_fault(options, lab, "os.kill(os.getpid(), signal.SIGKILL)")
    heard = Heard()
    outcome = run(**choice, ranks=2, progress=heard)
    assert outcome.exit_code == 0, heard.said
    assert sum("rank 1 of 0..1 was killed by signal 9" in text for text in heard.said) == 1
    assert any("they continue from their last checkpoint" in text for text in heard.said)
    close(outcome.rows, run(**{**choice, "results": lab.folder / "alone"}, progress=Progress()).rows)


@pytest.mark.slow
def test_a_cell_that_fails_on_one_rank_fails_alone(options, lab):
    outcome = run(**with_fault(options, lab, "raise ValueError('one rank')"), ranks=2, progress=Heard())
    status = outcome.rows.set_index("method")["status"]
    assert status.to_dict() == {"ce": "ok", "kd": "ok", "faulty": "error"}
    assert "ValueError: one rank" in outcome.rows.set_index("method")["error"]["faulty"]


@pytest.mark.slow
def test_the_first_rank_has_all_the_time_to_measure(options, lab):
    """It evaluates alone, when the others have ended: longer than they are given once one has failed."""
    choice = with_fault(options, lab, "pass")
    plugin = lab.folder / "plugins" / "faulty.py"
    slow = f"    def predict(self, student, modules):\n        import time\n        time.sleep({2 * GRACE})\n"
    plugin.write_text(plugin.read_text() + "\n" + slow + "        return student.logits\n", "utf-8")
    outcome = run(**choice, ranks=2, progress=Heard())
    assert outcome.rows["status"].tolist() == ["ok"] * 3


@pytest.mark.slow
def test_out_of_memory_on_one_rank_splits_the_cohort(options, lab):
    heard = Heard()
    choice = with_fault(options, lab, "raise torch.OutOfMemoryError('too much')")
    outcome = run(**choice, ranks=2, progress=heard)
    assert outcome.rows["status"].tolist() == ["ok"] * 3
    assert "out of memory with 3 students side by side; training them in two halves" in heard.said


@pytest.mark.slow
@pytest.mark.parametrize("afterwards", ["3", "1"])
def test_interrupted_ranks_go_on_as_another_number(tmp_path, wait_for, afterwards):
    """Ctrl-C in an epoch: the state is saved, and the same command with other ranks ends where one process does."""
    command = [*RUN, "--device", "cpu", "--epochs", "30"]
    make(tmp_path)
    first = spawn(*command, "--ranks", "2", cwd=tmp_path)
    work = tmp_path / "results" / ".work"
    wait_for(lambda: list(work.glob("*.pt")), "a checkpoint", STARTING)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=STARTING)
    assert first.returncode == 130, err
    interrupted = rows(tmp_path)
    assert set(interrupted["status"]) == {"interrupted"}
    assert (interrupted["epochs_done"] > 0).all()
    second = spawn(*command, "--ranks", afterwards, cwd=tmp_path)
    _, err = second.communicate(timeout=STARTING)
    assert second.returncode == 0, err
    assert "continuing after epoch" in err
    done = store.read(tmp_path / "results" / "tiny.csv")
    assert sorted(done["status"]) == ["interrupted"] * 2 + ["ok"] * 2


@pytest.mark.slow
def test_a_killed_driver_leaves_no_rank(tmp_path, wait_for):
    make(tmp_path)
    driver = spawn(*RUN, "--device", "cpu", "--epochs", "400", "--ranks", "2", cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "results" / ".work").glob("*.pt")), "a checkpoint", STARTING)
    children = _children(driver.pid)
    assert len(children) >= 2
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(map(_lives, children)), "the end of the ranks", 60)


def _children(parent):
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ranks": 0}, "ranks must be a whole number of at least 1"),
        ({"ranks": 2, "jobs": 2}, "leave out jobs and further devices"),
        ({"ranks": 2, "device": "all"}, "leave out jobs and further devices"),
        ({"ranks": 2, "device": "cuda:1"}, "from the first one on, not cuda:1"),
    ],
)
def test_options_that_do_not_go_with_ranks_are_refused(options, words):
    with pytest.raises(KdbenchError, match=words):
        RunOptions(**options)


@pytest.fixture
def tiny(tmp_path):
    make(tmp_path)
    return suites.load(str(tmp_path / "tiny.toml")), {
        "data_dir": tmp_path / "data",
        "teacher_weights": tmp_path / "teachers",
        "results": tmp_path / "results",
        "progress": Progress(),
        "device": "cpu",
        "ranks": 2,
    }


def test_a_student_with_dropout_is_refused(tiny):
    suite, how = tiny
    models = {**suite.models, "wet": ModelSpec("mobilenetv3_small_050", {"drop_rate": 0.5})}
    suite = dataclasses.replace(suite, models=models, pairs=(Pair("large", "wet"),), methods=("ce",))
    with pytest.raises(KdbenchError, match="student wet draws random numbers"):
        run(suite, **how)
    assert not list(how["results"].glob("*.csv"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"mixup": 0.2}, "mixup blends images"), ({"batch_size": 3}, "a batch of 3 images")],
)
def test_a_recipe_that_ranks_cannot_share_is_refused(tiny, changes, words):
    suite, how = tiny
    suite = dataclasses.replace(suite, recipe=dataclasses.replace(suite.recipe, **changes))
    with pytest.raises(KdbenchError, match=words):
        run(suite, **how)


def test_the_command_refuses_in_one_sentence(tmp_path):
    make(tmp_path)
    refused(kdbench(*RUN, "--ranks", "2", "--jobs", "2", cwd=tmp_path), "leave out ranks")
    refused(kdbench(*RUN, "--ranks", "two", cwd=tmp_path), "'two' is not a valid integer")
