"""Measure the peak memory of this process or of its GPU."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Give unused memory of a GPU back and measure its peak from here on; of a process on a CPU nothing is reset."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: reserved by torch on a GPU, else of this process, torch included.

    Reserved memory includes what CUDA graphs hold for their replays, which counts as free between these.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    status = Path("/proc/self/status")  # ru_maxrss of a new process starts at its parent's
    if status.is_file():
        return int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
