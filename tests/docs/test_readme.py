"""README's code is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from tests.support.cli_process import kdbench, python
from tests.support.tiny import RUN, make

TEXT = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The one fenced block of that language that contains a text."""
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", TEXT, re.S) if containing in b]
    assert len(found) == 1
    return found[0]


def test_the_three_lines_of_python_train_and_report(tmp_path):
    code = block("python", "write_report")
    assert len([line for line in code.splitlines() if line]) == 3
    done = python(code, cwd=tmp_path)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "results" / "digits.csv")
    assert sorted(table["method"]) == ["bickd", "kd"]
    assert (table["status"] == "ok").all()
    assert "bickd" in done.out
    assert (tmp_path / "reports" / "digits" / "leaderboard.md").is_file()


def test_the_plug_in_passes_the_contract_and_runs(tmp_path):
    place = make(tmp_path / "place")
    (place / "plugins").mkdir()
    (place / "plugins" / "mse.py").write_text(block("python", "class MSE"))
    commands = block("sh", "kdbench check").splitlines()
    check = kdbench(*commands[0].partition("#")[0].split()[1:], cwd=place)
    assert check.code == 0, check.out + check.err
    done = kdbench(*RUN, *commands[1].split()[2:], cwd=place)
    assert done.code == 0, done.err
    assert len(pd.read_csv(place / "results" / "tiny.csv")) == 4
