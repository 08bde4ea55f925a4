"""One job at a time, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from kdbench.plan.cells import Cell
from kdbench.runner.executors.base import Done, train_job
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job


class Serial:
    """`submit` returns when the job is finished."""

    name, slots, jobs = "serial", 1, 1

    def __init__(self, progress: Progress, stop: Callable[[], bool]) -> None:
        self._progress, self._stop = progress, stop

    def submit(self, job: Job) -> Future[Done]:
        """Train the job; the future is finished."""
        future: Future[Done] = Future()
        try:
            future.set_result(train_job(job, self._progress, self._stop))
        except Exception as error:
            future.set_exception(error)
        return future

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """None."""
        return []

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Return all of them."""
        return list(running)

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        pass
