"""One job at a time, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future

import torch

from kdbench.runner.executors.base import Done, train_job
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job


class Serial:
    """`submit` returns when the job is finished."""

    slots = 1

    def __init__(self, progress: Progress, stop: Callable[[], bool]) -> None:
        self._progress, self._stop = progress, stop
        self.threads = torch.get_num_threads()

    def submit(self, job: Job) -> Future[Done]:
        """Train the job; the future is finished."""
        future: Future[Done] = Future()
        try:
            future.set_result(train_job(job, self._progress, self._stop))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Return all of them."""
        return list(running)

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        pass
