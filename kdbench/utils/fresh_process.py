"""Call a function in a fresh process, so that its peak memory can be measured."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function(*args)`` in a new interpreter with as many threads as this one; all must be picklable."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(function, *args).result()


def peak_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: of torch's allocations on a GPU, else of this process, torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")  # ru_maxrss of a new process starts at its parent's
    if status.is_file():
        return int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
