"""Real process groups of a few local processes, by gloo."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from kdbench.train.ranks import Ranks, joined


def on_ranks(function: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """What ``function(ranks, *arguments)`` returns on each of ``world`` ranks; they are forks of this process."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(world, fork) as pool:
        meeting = Path(folder) / "meeting"
        answers = [pool.submit(_run, function, rank, world, meeting, arguments) for rank in range(world)]
        return [pickle.loads(answer.result(1200)) for answer in answers]


def _run(function: Callable[..., Any], rank: int, world: int, meeting: Path, arguments: tuple) -> bytes:
    torch.set_num_threads(1)
    with joined(rank, world, torch.device("cpu"), meeting) as ranks:
        return pickle.dumps(function(ranks, *arguments))  # tensors by value, not by shared memory


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same in this process."""
    return function(Ranks(), *arguments)
