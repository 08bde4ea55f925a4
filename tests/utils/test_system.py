"""Systems and devices that kdbench does not run on are named in one sentence."""

import sys

import pytest
import torch

import kdbench
from kdbench.errors import KdbenchError
from kdbench.utils.environment import choose_device, unused_gpu
from tests.support import cli_process


@pytest.mark.parametrize("command", [["run"], ["status"], ["--help"]])
def test_the_command_line_on_windows(tmp_path, command):
    done = cli_process.kdbench(*command, cwd=tmp_path, before=lambda: setattr(sys, "platform", "win32"))
    cli_process.refused(done, "does not run on Windows", "WSL 2")


def test_python_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(KdbenchError, match="WSL 2"):
        kdbench.run  # noqa: B018


def test_a_gpu_of_apple_is_not_passed_over_in_silence(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert unused_gpu("auto") == "the GPU of this machine (MPS) is not supported; training on the CPU"
    assert unused_gpu("cpu") == ""
    with pytest.raises(KdbenchError, match="use --device cpu"):
        choose_device("mps")
