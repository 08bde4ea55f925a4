"""What tests of executors share."""

import pytest
import torch

from tests.support.cli_process import ENVIRONMENT


@pytest.fixture
def options(lab, monkeypatch, teacher_state):
    """Of `run`: ce and kd on two seeds, each seed a job; started processes have one thread and this checkout."""
    for name in ("OMP_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    (lab.folder / "weights").mkdir()
    torch.save(teacher_state, lab.folder / "weights" / "teacher.pth")
    return {
        "suite": lab.suite_file(), "methods": ["ce", "kd"], "data_dir": lab.data, "seeds": [0, 1],
        "teacher_weights": lab.folder / "weights", "results": lab.folder / "results", "device": "cpu",
    }  # fmt: skip
