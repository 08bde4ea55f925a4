"""The scripts for a machine with a GPU."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdbench.cli.main import main


def gpu_commands():
    lines = (Path(__file__).parents[2] / ".ci" / "gpu").read_text().splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("part kdbench ")]


@pytest.mark.parametrize("words", gpu_commands(), ids=lambda words: " ".join(words[:4]))
def test_every_command_of_the_gpu_script_is_one_that_kdbench_has(words):
    verb = main.commands[words[0]].commands[words[1]]
    assert verb.make_context("kdbench", words[2:]).params["device"] == "cuda:0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: the script would run")
def test_the_gpu_script_says_what_it_needs(tmp_path):
    script = Path(__file__).parents[2] / ".ci" / "gpu"
    run = subprocess.run(["bash", script, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "needs kdbench installed and a CUDA device that torch sees; nvidia-smi lists them\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: the probe would run")
def test_the_probe_says_what_it_needs(tmp_path):
    probe = Path(__file__).parents[2] / ".ci" / "gpu_probe.py"
    run = subprocess.run(
        [sys.executable, probe, "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "needs a CUDA device that torch sees; --device cpu --quick is a dry run\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_dry_run_of_the_probe_measures_and_compares(tmp_path):
    """The bits of kd's student are the same alone, in a cohort and from recordings."""
    probe = Path(__file__).parents[2] / ".ci" / "gpu_probe.py"
    command = [sys.executable, probe, "--device", "cpu", "--quick", "--out", tmp_path, "bits", "neighbour"]
    subprocess.run(command, capture_output=True, check=True)
    bits, end, *others = map(json.loads, (tmp_path / "probe.jsonl").read_text().splitlines())
    assert end["code"] == 0
    assert len(set(bits.values()) - {"bits"}) == 1
    assert {each["cell"]: each["status"] for each in others if "cell" in each} == dict.fromkeys(
        ("ce", "kd", "waits", "dkd"), "ok"
    )
