"""`kdbench run` as a user meets it: train, resume, report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.results.store import COLUMNS
from tests.support.cli_process import kdbench
from tests.support.tiny import NUMBERS, RUN, make, rows


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


def test_run_then_report_then_nothing_is_left_to_do(place):
    first = kdbench(*RUN, "--methods", "ce,kd,mlkd", cwd=place)
    assert first.code == 0, first.err
    assert re.search(r"^ *kd +\d+\.\d\d", first.out, re.M), first.out
    assert "WARNING: the suite expects 99.90 %" in first.err
    table = rows(place)
    assert list(table.columns) == COLUMNS
    assert sorted(table["method"]) == ["ce", "kd", "mlkd"]
    again = kdbench(*RUN, "--methods", "ce,kd,mlkd", cwd=place)
    assert again.code == 0
    assert len(rows(place)) == 3
    report = kdbench("report", "--print", cwd=place)
    assert report.code == 0, report.err
    assert "mlkd" in report.out
    made = {file.name for file in (place / "reports" / "tiny").iterdir()}
    assert {"leaderboard.md", "leaderboard.csv", "curves.png"} <= made
    assert "forest.png" not in made  # one seed has no interval
    page = (place / "reports" / "tiny" / "leaderboard.md").read_text()
    drawn = {name for name in made if name.endswith(".png")}
    assert set(re.findall(r"\]\((\S+)\)|`(\S+png)`", page)) == {
        (name, "") if name in ("curves.png", "cost.png") else ("", name) for name in drawn
    }
    assert "3 ok" in kdbench("status", cwd=place).out
    details = np.load(place / "results" / "tiny.details" / f"{table['cell_id'][1]}.npz")
    assert details["confusion"].sum() == 48
    students = list((place / "results" / ".work" / "students").glob("*.safetensors"))
    assert len(students) == 3
    assert not list((place / "results" / ".work").glob("*.pt"))


def test_force_adds_a_row_with_the_same_numbers(place):
    kdbench(*RUN, cwd=place)
    assert kdbench(*RUN, "--force", cwd=place).code == 0
    table = rows(place)
    assert list(table["attempt"]) == [1, 1, 2, 2]
    pd.testing.assert_frame_equal(table[NUMBERS][:2], table[NUMBERS][2:].reset_index(drop=True))


def test_a_dry_run_prints_the_plan_and_trains_nothing(place):
    done = kdbench(*RUN, "--set", "kd.temperature=2,4,8", "--seeds", "0-1", "--dry-run", cwd=place)
    assert done.code == 0, done.err
    assert "8 cells = 0 done + 8 missing" in done.out
    assert (
        "cohort 2: seed 1, large: ce (small), kd temperature=2 (small), kd (small), kd temperature=8"
        in done.out
    )
    assert not (place / "results" / "tiny.csv").exists()


def test_a_dry_run_says_what_a_user_should_know_before(place):
    """Diverged cells count as done; an edited method and a sweep on the test split are named."""
    kdbench("new", "mine", cwd=place)
    command = [*RUN, "--methods", "mine", "--set", "mine.weight=1,1e30"]
    assert kdbench(*command, cwd=place).code == 3
    file = place / "plugins" / "mine.py"
    file.write_text(file.read_text().replace("return soft_kl(", "return 2 * soft_kl("))
    lines = kdbench(*command, "--dry-run", cwd=place).out.splitlines()
    assert "2 cells = 2 done (1 of them diverged) + 0 missing" in lines[0]
    assert lines[1].startswith(
        "diverged: mine weight=1e+30, large -> small, seed 0: the training loss became"
    )
    assert "--force" in lines[2]
    assert lines[3].startswith("WARNING: the code of mine changed since its rows were written; ")
    assert f"write version = 2 in {file.resolve()} and run again" in lines[3]
    assert lines[4].startswith("WARNING: several values of mine.weight on the TEST split")
    holdout = kdbench(*command, "--split", "holdout", "--dry-run", cwd=place).out
    assert "several values" not in holdout


def test_a_later_run_is_compared_with_the_baseline_of_before(place):
    kdbench(*RUN, "--methods", "kd", cwd=place)
    later = kdbench(*RUN, "--methods", "dkd", cwd=place)
    assert re.search(r"^ *kd +\d+\.\d\d", later.out, re.M), later.out
    assert "No Δ" not in later.out
    untaught = kdbench(*RUN, "--methods", "ce", cwd=place)  # the baseline's teacher may be any
    assert re.search(r"^ce +\d+\.\d\d \(1\)[^-+]* [-+]\d", untaught.out, re.M), untaught.out
    other = kdbench(*RUN, "--methods", "dkd", "--epochs", "2", cwd=place)
    assert "No Δ" in other.out


def test_set_multiplies_the_matrix_and_names_the_variant(place):
    kdbench(*RUN, "--methods", "kd", "--set", "kd.temperature=2,4", cwd=place)
    table = rows(place)
    assert [v if isinstance(v, str) else "" for v in table["variant"]] == ["temperature=2", ""]
    assert table["top1"].nunique() + table["nll"].nunique() > 2


def test_the_teacher_is_trained_once_where_no_weights_are_given(place):
    command = ["run", "--suite", "tiny.toml", "--data-dir", "data", "--methods", "kd"]
    first = kdbench(*command, cwd=place)
    assert first.code == 0, first.err
    assert "training the teacher large" in first.err
    second = kdbench(*command, "--seeds", "1", cwd=place)
    assert "training the teacher" not in second.err
    table = rows(place)
    assert table["teacher_id"].nunique() == 1
    listed = kdbench("teachers", "list", "--suite", "tiny.toml", "--data-dir", "data", cwd=place)
    assert table["teacher_id"][0] in listed.out
    assert "99.90" in listed.out


def test_progress_is_quiet_without_a_terminal(place):
    done = kdbench(*RUN, cwd=place)
    assert "\r" not in done.err
    assert "it/s" not in done.err
    assert "%|" not in done.err
