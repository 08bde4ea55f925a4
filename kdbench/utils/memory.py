"""Measure the peak memory of this process or of its GPU."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


def peak_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: of torch's allocations on a GPU, else of this process, torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")  # ru_maxrss of a new process starts at its parent's
    if status.is_file():
        return int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
