"""README's code is run as it stands."""

from __future__ import annotations

import pandas as pd

from tests.support.cli_process import python
from tests.support.pages import ROOT, block


def test_the_three_lines_of_python_train_and_report(tmp_path):
    code = block("README.md", "python", "write_report")
    assert len([line for line in code.splitlines() if line]) == 3
    done = python(code, cwd=tmp_path)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "results" / "digits.csv")
    assert sorted(table["method"]) == ["bickd", "kd"]
    assert (table["status"] == "ok").all()
    assert "bickd" in done.out
    assert (tmp_path / "reports" / "digits" / "leaderboard.md").is_file()


def test_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
