"""README's code is run as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from tests.support.pages import ROOT, block

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text("utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
EXECUTE = """
import json, linecache, sys
space = {"__name__": "__main__"}
for number, text in enumerate(json.loads(sys.argv[1])):  # as a notebook does: each cell has a text for tracebacks
    linecache.cache[f"<cell {number}>"] = (len(text), None, text.splitlines(keepends=True), f"<cell {number}>")
    exec(compile(text, f"<cell {number}>", "exec"), space)
print(space["outcome"]._repr_html_())
"""


@pytest.mark.slow
def test_the_notebooks_cells_train_a_method_of_their_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EXECUTE, json.dumps(CELLS)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "&lt;digits: 3 of 3 cells done&gt;" in done.stdout
    table = pd.read_csv(tmp_path / "results" / "digits.csv")
    assert sorted(table["method"]) == ["ce", "kd", "logitmatch"]
    assert (table["status"] == "ok").all()
    assert table["code_hash"].notna().all()


def test_readme_shows_the_ten_lines_of_the_notebook():
    shown = block("README.md", "python", "LogitMatch").splitlines()
    lines = [line for text in CELLS for line in text.splitlines() if line.strip()]
    assert [line for line in shown if line] == lines
    assert len(lines) == 10
    assert all(cell.get("outputs", []) == [] for cell in NOTEBOOK["cells"])


def test_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
