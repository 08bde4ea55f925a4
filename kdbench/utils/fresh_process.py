"""A function in a fresh process, where its peak memory is its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch


def call(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` in a new interpreter with as many threads as this one; all must be picklable."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(function, *args).result()
