"""The seam between the driver, which plans, locks and records, and the executors, which train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol

import torch

from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result

Done = tuple[list[Result], bool]  # a result per cell, and whether the job was stopped before its end


class Executor(Protocol):
    """Trains jobs. ``slots``: how many at a time. ``threads``: CPU threads of each.

    When the run stops, jobs save their state and return. At the end of the ``with`` statement nothing is running.
    """

    slots: int
    threads: int

    def submit(self, job: Job) -> Future[Done]:
        """Start a job; there must be a free slot.

        The future raises torch.OutOfMemoryError where the job does not fit, BrokenExecutor where its process died,
        and what `train_cohort` raises.
        """

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Those of ``running`` that are finished, as soon as one is."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None: ...


def train_job(job: Job, progress: Progress, stop: Callable[[], bool]) -> Done:
    """Train one cohort; out of memory, free what it took before that is raised."""
    try:
        return train_cohort(job, progress, stop)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise torch.OutOfMemoryError(reason)
