"""Call a function in a fresh process, so that its peak memory can be measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function(*args)`` in a new interpreter with as many threads as this one; all must be picklable."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(function, *args).result()
