"""What is printed: readable at 80 columns and in a log file."""

import pytest

from kdbench.report.write import leaderboard_text
from kdbench.results import store
from kdbench.runner import status
from tests.support.cli_process import kdbench
from tests.support.scenarios import COLUMN, FIVE, grid, run, runs

RED = "\x1b[31mthe loss became nan\x1b[0m"
FAILED = [
    run("crd", None, status="diverged", error=f"{RED} " * 9),
    run("fitnet", None, status="skipped", error="because " * 30),
    run("ofa", None, status="error", error="what went wrong " * 20),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """25 methods on 5 pairs, a long variant, long reasons."""
    folder = tmp_path_factory.mktemp("terminal")
    rows = grid(FIVE, **{f"method{i:02d}": 0.1 * i for i in range(24)})
    rows += runs(
        "dkd", 70.0, 71.0, variant="alpha=0.5 beta=2 temperature=4 warmup_epochs=20", params='{"x":1}'
    )
    store.append(folder / "s.csv", rows + FAILED)
    return folder


def test_the_leaderboard_of_25_methods_fits_80_columns(results):
    text = leaderboard_text("s", store.read(results / "s.csv"))
    assert max(map(len, text.splitlines())) <= 80
    names = [line.split()[0] for line in text.splitlines() if line[:6] == "method" and line[6:8].isdigit()]
    assert {names.count(f"method{i:02d}") for i in range(24)} == {names.count("method00")}  # in every block
    assert "temperature=4" in text  # a long name is folded, not cut


def test_a_column_is_never_split_between_blocks(results):
    lines = leaderboard_text("s", store.read(results / "s.csv")).splitlines()
    teacher, student = COLUMN.split(" -> ")
    (heading,) = [i for i, line in enumerate(lines) if f"{teacher} ->" in line and line.startswith("method")]
    assert student in lines[heading + 1]


def test_status_fits_80_columns_and_cuts_no_reason(results):
    text = status.status(results)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("wrong") == 20


def test_no_control_characters_where_stdout_is_no_terminal(results, tmp_path):
    done = kdbench("status", "--results", str(results), cwd=tmp_path)
    assert done.code == 0, done.err
    assert all(line.isprintable() for line in done.out.splitlines())
    assert max(map(len, done.out.splitlines())) <= 80
    assert done.out.count("the loss became nan") > 5
