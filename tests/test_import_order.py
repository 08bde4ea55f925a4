"""The import order that `.importlinter` states: kept as it is, broken by an import against it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="needs import-linter")
ROOT = Path(__file__).parents[1]
WRONG = {
    "upwards": (
        "errors.py",
        "from kdbench.cli.main import main",
        "Rooms are stacked in the order of the work",
    ),
    "torch": ("suites/loader.py", "import torch", "Reports, results and suites need no torch"),
    "a circle": ("train/job.py", "from kdbench.train.cohort import Cohort", "No circle of imports"),
}


@pytest.fixture
def copy(tmp_path):
    """The package and its contracts in a folder of their own."""
    shutil.copytree(ROOT / "kdbench", tmp_path / "kdbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    """(exit code, output) of `lint-imports` in ``folder``."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_package_keeps_its_import_order(copy):
    code, text = lint(copy)
    assert code == 0, text
    assert "0 broken" in text


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_import_breaks_its_contract(copy, kind):
    file, line, contract = WRONG[kind]
    with (copy / "kdbench" / file).open("a") as text:
        text.write(f"\n{line}\n")
    code, text = lint(copy)
    assert code == 1
    broken = [line for line in text.splitlines() if "BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), text
