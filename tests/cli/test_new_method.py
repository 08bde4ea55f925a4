"""`kdbench new`: a plug-in and a test that work as they are written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.cli_process import ENVIRONMENT, kdbench, refused
from tests.support.tiny import RUN, make


def test_the_plug_in_passes_the_contract_and_trains(tmp_path):
    place = make(tmp_path / "place")
    written = kdbench("new", "mine", cwd=place)
    assert written.out.split() == ["plugins/mine.py", "plugins/test_mine.py"]
    check = kdbench("check", "mine", cwd=place)
    assert check.code == 0, check.out + check.err
    assert kdbench(*RUN, "--methods", "mine", cwd=place).code == 0


@pytest.mark.parametrize("name", ["class", "torch", "random"])
def test_a_name_that_would_break_imports_is_refused(tmp_path, name):
    refused(kdbench("new", name, cwd=tmp_path), f"would stand in the way of Python's own '{name}'")


def test_every_verb_looks_where_new_writes(tmp_path):
    kdbench("new", "mine", cwd=tmp_path)
    assert "mine " in kdbench("methods", cwd=tmp_path).out
    (tmp_path / "plugins" / "mine.py").rename(tmp_path / "mine.py")
    refused(kdbench("methods", "mine", cwd=tmp_path), "unknown method 'mine'")


def test_a_folder_plugins_of_other_software_is_left_alone(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "other.py").write_text("raise SystemExit('run by kdbench')")
    assert kdbench("methods", cwd=tmp_path).code == 0
    (tmp_path / "plugins" / "other.py").unlink()
    assert kdbench("methods", cwd=tmp_path).code == 0


@pytest.mark.slow
def test_the_written_test_passes(tmp_path):
    kdbench("new", "mine", cwd=tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "plugins/test_mine.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, encoding="utf-8", check=False
    )
    assert "2 passed" in done.stdout, done.stdout


def test_nothing_of_the_templates_names_is_left(tmp_path):
    kdbench("new", "mine", cwd=tmp_path)
    for file in (tmp_path / "plugins").iterdir():
        assert "mymethod" not in file.read_text("utf-8").lower()


def test_no_file_is_overwritten_and_no_name_taken(tmp_path):
    kdbench("new", "mine", cwd=tmp_path)
    before = (tmp_path / "plugins" / "mine.py").read_bytes()
    refused(kdbench("new", "mine", cwd=tmp_path), "exists already")
    assert (tmp_path / "plugins" / "mine.py").read_bytes() == before
    refused(kdbench("new", "kd", cwd=tmp_path), "there is a method 'kd' already")
    refused(kdbench("new", "2-My-Method", cwd=tmp_path), "lower-case", "such as my_method")
