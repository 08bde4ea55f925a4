"""`kdbench status`: the counts must be those of the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner import status
from kdbench.runner.heartbeat import Beat
from kdbench.runner.paths import Paths
from kdbench.utils import locks
from kdbench.utils.method_facts import shipped
from tests.support.cli_process import ENVIRONMENT, line_of
from tests.support.scenarios import hex12, run


def rows(results, *known, suite="digits"):
    blank = {
        "suite": suite, "dataset": suite, "pair": (None, "s"), "top1": 50.0, "recipe_id": None, "epochs_done": None,
    }  # fmt: skip
    store.append(results / f"{suite}.csv", [run(**blank | row) for row in known])


def test_status_counts_cells_not_attempts(tmp_path):
    rows(
        tmp_path,
        {"cell_id": "a", "status": "error", "error": "first try"},
        {"cell_id": "a", "status": "ok"},
        {"cell_id": "b", "status": "ok"},
        {"cell_id": "b", "status": "interrupted"},
        {"cell_id": "c", "status": "diverged", "teacher": "t", "seed": 2, "error": "the loss became nan"},
        {"cell_id": "d", "status": "skipped", "error": "no stages"},
        {"cell_id": "e", "status": "oom", "method": "dkd"},
    )
    text = status.status(tmp_path)
    assert line_of(text, "digits:") == "digits: 1 diverged, 2 ok, 1 oom, 1 skipped"
    itself = "the suite itself, 6 methods x 6 pairs x 3 seeds at 17 epochs: 0 of 108 cells done"
    assert itself in " ".join(text.split())
    assert line_of(text, "  diverged") == "  diverged  kd, t -> s, seed 2: the loss became nan"
    assert line_of(text, "  oom") == "  oom  dkd, s, seed 0"
    assert "first try" not in text
    assert "  skipped" not in text


def test_status_has_a_line_for_every_suite(tmp_path):
    rows(tmp_path, {"cell_id": "a", "status": "ok"})
    rows(tmp_path, {"cell_id": "b", "status": "ok"}, {"cell_id": "c", "status": "ok"}, suite="cifar100")
    rows(tmp_path, {"cell_id": "d", "status": "ok"}, suite="mine")
    lines = [line for line in status.status(tmp_path).splitlines() if not line.startswith(" ")]
    assert lines == ["cifar100: 2 ok", "digits: 1 ok", "mine: 1 ok"]


def test_status_counts_what_the_suite_itself_still_lacks(tmp_path, scratch_registry):
    """Its methods x pairs x seeds on the test split by its recipe; a run without a teacher counts once a student."""
    suite = suites.load("cifar100")
    own = {
        "student": "resnet20", "recipe_id": suite.recipe.id, "split": "test", "default": True,
        "status": "ok", "teacher": "resnet56",
    }  # fmt: skip
    other = {"cell_id": "x", "recipe_id": hex12("quick"), "status": "ok"}
    rows(
        tmp_path,
        own | {"cell_id": "a"},
        own | {"cell_id": "b", "method": "ce", "teacher": None},
        own | {"cell_id": "c", "method": "dkd", "status": "error"},
        own | {"cell_id": "d", "split": "holdout"},
        own | {"cell_id": "e", "seed": 9},
        own | {"cell_id": "f", "default": False},
        own | {"cell_id": "g", "method": "dkd", "dataset": "cifar100 (5 a class)"},
        own | other,
        suite="cifar100",
    )
    students = {pair.student for pair in suite.pairs}
    alone = len([m for m in suite.methods if not registry.get(m).needs.teacher])
    total = len(suite.seeds) * (alone * len(students) + (len(suite.methods) - alone) * len(suite.pairs))
    found = store.records(store.read(tmp_path / "cifar100.csv"))
    assert status.own_cells(suite, found) == (total, 2)
    assert f"2 of {total} cells done" in " ".join(status.status(tmp_path).split())


def test_status_says_what_was_recorded_beside_the_suite_itself(tmp_path):
    """Of a suite whose methods are `all`, too."""
    pair = {"teacher": "resnet20_thin", "student": "resnet8_thin", "epochs_done": 2, "status": "ok"}
    rows(
        tmp_path,
        pair | {"cell_id": "a", "method": "kd", "seed": 7},
        pair | {"cell_id": "b", "method": "ce", "teacher": None, "seed": 0},
        suite="digits-all",
    )
    text = " ".join(status.status(tmp_path).split())
    total = len(suites.load("digits-all").seeds) * len(suites.load("digits-all").pairs) * len(shipped())
    assert text == (
        "digits-all: 2 ok methods ce, kd; pairs resnet20_thin:resnet8_thin; seeds 0, 7; epochs 2; splits test "
        f"the suite itself, {len(shipped())} methods x 6 pairs x 5 seeds at 17 epochs: 0 of {total} cells done"
    )


def test_status_keeps_to_80_columns(tmp_path):
    reason = (
        "kd failed in a training step: ValueError: " + "a long reason " * 20 + "(traceback in /a/path.txt)"
    )
    rows(tmp_path, {"cell_id": "a", "status": "error", "error": reason})
    text = status.status(tmp_path)
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(reason.split()) in " ".join(text.split())


def test_status_without_results_says_where_it_looked(tmp_path):
    assert status.status(tmp_path / "none") == f"no results in {tmp_path / 'none'}"


def _hold(folder, ready):
    with locks.held(folder, ["a", "b"]):
        ready.write_text("")
        signal.pause()


def test_status_tells_what_a_live_process_trains(tmp_path, in_child, wait_for):
    process = in_child(_hold, tmp_path / ".work" / "locks", tmp_path / "ready")
    wait_for((tmp_path / "ready").exists)
    line = line_of(status.status(tmp_path), "running")
    assert line.startswith(f"running: 2 cells in process {process.pid} on {os.uname().nodename}")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert "running" not in status.status(tmp_path)


def test_status_says_how_far_a_killed_command_was(tmp_path, in_child):
    process = in_child(os.getpid)
    process.join()
    folder = Paths(tmp_path, "tiny").running
    folder.mkdir(parents=True)
    for name, recorded in (("done", 9), ("killed", 2)):
        beat = Beat(process.pid, os.uname().nodename, 0.0, 0.0, "tiny", 9, recorded, None)
        (folder / f"{name}.json").write_text(json.dumps(asdict(beat)))
    text = " ".join(status.status(tmp_path).split())
    assert text == (
        f"cut off: tiny in process {process.pid} died with 2 of 9 cells done; its command continues, typed again"
    )


def test_a_silent_process_of_another_machine_is_remarked_on(tmp_path):
    folder = Paths(tmp_path, "tiny").running
    folder.mkdir(parents=True)
    an_hour_ago = time.time() - 3600
    beat = Beat(1, "elsewhere", an_hour_ago - 60, an_hour_ago, "tiny", 9, 2, 5400.0, ["cohort 2 of 3; kd"])
    (folder / "elsewhere-1.json").write_text(json.dumps(asdict(beat)))
    text = " ".join(status.status(tmp_path).split())
    assert "running: tiny in process 1 on elsewhere for 61 min; 2 of 9 cells done, about 0:30:00 left" in text
    assert "nothing heard of it for 60 min cohort 2 of 3; kd" in text


def test_status_lists_cells_with_their_ids(tmp_path):
    rows(
        tmp_path,
        {
            "cell_id": "b",
            "status": "ok",
            "teacher": "t",
            "method": "kd",
            "variant": "beta=2",
            "epochs_done": 4,
        },
        {"cell_id": "a", "status": "diverged", "method": "ce"},
    )
    lines = status.status(tmp_path, cells=True).splitlines()
    table = [line.split() for line in lines[lines.index(line_of("\n".join(lines), "  cell")) :]]
    assert table[1] == ["a".ljust(12, "0"), "diverged", "–", "–", "ce,", "s,", "seed", "0"]
    assert table[2] == ["b".ljust(12, "0"), "ok", "50.00", "4", "kd", "beta=2,", "t", "->", "s,", "seed", "0"]


def test_status_needs_no_torch(tmp_path):
    code = (
        "import sys; from kdbench.cli.main import main\n"
        "try: main(['status'])\n"
        "finally: assert not {'torch', 'tqdm', 'matplotlib'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, timeout=60).returncode == 0


def test_status_refuses_a_foreign_file(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(KdbenchError, match=r"mine\.csv is no results file of kdbench"):
        status.status(tmp_path)
