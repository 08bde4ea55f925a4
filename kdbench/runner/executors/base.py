"""The seam between the driver, which plans, locks and records, and the executors, which train."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import torch

from kdbench.errors import KdbenchError, first_line
from kdbench.plan.cells import Cell
from kdbench.runner.executors.ranks import rank_count, train_on_ranks
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.fill_cache import fill_cache
from kdbench.train.job import Job, Result
from kdbench.utils import environment


@dataclass(frozen=True)
class Done:
    """A job that returned: a result per cell, whether it was stopped before its end, and where it trained.

    source: the columns of `utils.environment.collect` where it trained, and started_utc.
    """

    results: list[Result]
    stopped: bool
    source: dict[str, Any]


class Executor(Protocol):
    """Trains jobs. ``slots``: how many at a time. ``name`` and ``jobs``: the columns of rows called executor and jobs.

    When the run stops, jobs save their state and return. At the end of the ``with`` statement nothing is running.
    """

    name: str
    slots: int
    jobs: int

    def submit(self, job: Job) -> Future[Done]:
        """Start a job; there must be a free slot.

        The future raises torch.OutOfMemoryError where the job does not fit, BrokenExecutor where its process died, and
        what `train_cohort` raises. Its result is ``stopped`` where the job's machine is taken away, too.
        """

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cohorts of these cells that train already, for a driver that has ended; `submit` takes them up."""

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Those of ``running`` that are finished, as soon as one is."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None: ...


def now() -> str:
    """The time in UTC, as rows have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_collect = functools.cache(
    environment.collect
)  # git takes long on a network's file system; one process is one place


def train_job(job: Job, progress: Progress, stop: Callable[[], bool]) -> Done:
    """Do one job; out of memory, free what it took before that is raised.

    Raises KdbenchError where the GPU reports an error, after which a process can compute nothing on it.
    """
    source = {**_collect(job.device), "threads": torch.get_num_threads(), "started_utc": now()}
    count = 1 if job.fills_cache else rank_count(job)
    try:
        if count > 1:
            source["device"] = f"{count} x {source['device']}"
            return Done(*train_on_ranks(job, count, progress, stop), source)
        work = fill_cache if job.fills_cache else train_cohort
        return Done(*work(job, progress, stop), source)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    except torch.AcceleratorError as error:
        names = ", ".join(dict.fromkeys(cell.method for cell in job.cells))
        raise KdbenchError(
            f"{job.device} failed while it trained {names}: {first_line(error)}. Nothing of this is recorded; the same "
            "command goes on from the last checkpoints. If it fails again, name the methods one by one"
        ) from error
    gc.collect()  # until then the memory of what refers to itself is no cache that could be emptied
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise torch.OutOfMemoryError(reason)
