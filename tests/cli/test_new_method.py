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
    check = kdbench("check", "plugins/mine.py", cwd=place)
    assert check.code == 0, check.out + check.err
    assert kdbench(*RUN, "--methods", "mine", "--plugins", "plugins", cwd=place).code == 0


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
    refused(kdbench("new", "My-Method", cwd=tmp_path), "lower-case")
