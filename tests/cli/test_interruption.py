"""A run that is killed, signalled or out of time, and two that share their work."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.support.cli_process import kdbench, spawn
from tests.support.tiny import NUMBERS, RUN, make, rows


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


def _wait_for(pattern: str, folder: Path, process) -> None:
    deadline = time.time() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline
        time.sleep(0.01)


def test_a_killed_run_resumes_to_the_numbers_of_a_whole_one(place, tmp_path):
    command = [*RUN, "--methods", "ce,kd,mlkd", "--epochs", "30"]
    process = spawn(*command, cwd=place)
    _wait_for("results/.work/*.json", place, process)
    time.sleep(0.3)
    running = kdbench("status", cwd=place).out
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert f"running: tiny in process {process.pid}" in running
    assert "0 of 3 cells done" in running
    assert " of 30" in running
    assert not (place / "results" / "tiny.csv").exists() or len(rows(place)) < 3
    killed = kdbench("status", cwd=place).out
    assert "running" not in killed
    (epoch,) = set(
        re.findall(r"mlkd, large -> small, seed 0: after epoch (\d+) of 30", " ".join(killed.split()))
    )
    again = kdbench(*command, cwd=place)
    assert again.code == 0
    assert f"ce, kd, mlkd: continuing after epoch {epoch} of 30" in again.err
    after = kdbench("status", "--cells", cwd=place).out
    assert "saved" not in after
    assert all(cell in after for cell in rows(place)["cell_id"])
    assert not list((place / "results" / ".work" / "running").iterdir())
    whole = make(tmp_path / "whole")
    assert kdbench(*command, cwd=whole).code == 0
    pd.testing.assert_frame_equal(rows(place)[NUMBERS], rows(whole)[NUMBERS])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_state_and_says_so(place, number, code):
    command = [*RUN, "--methods", "kd", "--epochs", "2000"]
    process = spawn(*command, cwd=place)
    _wait_for("results/.work/*.pt", place, process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert "type the same command to go on" in err
    assert "Traceback" not in err
    assert list(rows(place)["status"]) == ["interrupted"]
    assert list((place / "results" / ".work").glob("*.pt"))


def test_max_hours_stops_saved_with_exit_code_3(place):
    done = kdbench(*RUN, "--epochs", "5000", "--max-hours", "0.0005", cwd=place)
    assert done.code == 3
    assert "state saved" in done.err


@pytest.mark.slow
def test_two_shells_share_the_work_and_train_nothing_twice(place):
    command = [*RUN, "--seeds", "0-3", "--epochs", "10"]
    processes = [spawn(*command, cwd=place) for _ in range(2)]
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    table = rows(place)
    assert len(table) == 8
    assert table["cell_id"].is_unique
