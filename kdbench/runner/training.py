"""The driver: cohorts go to an executor, their results come back one by one. It alone locks, splits and retries."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.results import store
from kdbench.runner.executors.base import Done, Executor
from kdbench.runner.inputs import Inputs
from kdbench.runner.missing import Missing, count_tries, positions
from kdbench.runner.paths import Paths
from kdbench.runner.stop import Stop
from kdbench.runner.workspace import Say
from kdbench.train.job import Result
from kdbench.utils import locks
from kdbench.utils.status import Status

RETRIES = 3  # of a cohort whose process dies


@dataclass(frozen=True)
class Finished:
    """A cell's result, when its training started here (UTC, ISO 8601) and with how many threads it trained."""

    result: Result
    started: str
    threads: int


@dataclass(frozen=True)
class _Attempt:
    """A locked cohort. ``deaths``: how many processes have died on it."""

    cells: Sequence[Cell]
    started: str = ""
    deaths: int = 0


def train(missing: Missing, inputs: Inputs, executor: Executor, say: Say, stop: Stop) -> Iterator[Finished]:
    """Train what is missing, and yield each result: its cell is locked until the next one is taken.

    Left out are cells that another process has locked, or has tried since ``missing`` was planned.
    """
    paths = inputs.workspace.paths
    waiting = deque(form_cohorts(missing.cells, {}))
    ready: deque[_Attempt] = deque()
    running: dict[Future[Done], _Attempt] = {}
    with _Locks(paths, missing) as held:
        while True:
            while len(running) < executor.slots and (ready or waiting) and not stop():
                if ready:
                    attempt = replace(ready.popleft(), started=_now())
                    running[executor.submit(inputs.job(attempt.cells))] = attempt
                else:
                    ready.extend(_attempts(held.take(waiting.popleft()), paths.work))
            if not running:
                return
            for future in executor.wait(running):
                attempt = running.pop(future)
                results, again = _collect(future, attempt, paths.work, say, stop)
                ready.extendleft(reversed(again))
                for result in results:
                    yield Finished(result, attempt.started, executor.threads)
                    held.release(result.cell)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attempts(cells: Sequence[Cell], work: Path, deaths: int = 0) -> list[_Attempt]:
    """Cohorts of cells that go on from equal positions."""
    return [_Attempt(cohort, deaths=deaths) for cohort in form_cohorts(cells, positions(work, cells))]


def _collect(
    future: Future[Done], attempt: _Attempt, work: Path, say: Say, stop: Stop
) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """The results of an attempt, and what is to be tried in its place where it failed as a whole."""
    try:
        return future.result()[0], []
    except torch.OutOfMemoryError as error:
        return _split(attempt, str(error), work, say)
    except BrokenExecutor:
        return ([], []) if stop() else _retry(attempt, work, say)


def _split(
    attempt: _Attempt, reason: str, work: Path, say: Say
) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """Two halves; a single cell that does not fit is recorded so."""
    cells = attempt.cells
    if len(cells) == 1:
        return [Result(cells[0], {"status": Status.OOM, "error": reason, "cohort_size": 1})], []
    say(f"out of memory with {len(cells)} students side by side; training them in two halves")
    half = len(cells) // 2
    return [], [each for part in (cells[:half], cells[half:]) for each in _attempts(part, work)]


def _retry(attempt: _Attempt, work: Path, say: Say) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """The same cells from their last checkpoint; after ``RETRIES`` they are recorded as failed."""
    cells, deaths = attempt.cells, attempt.deaths + 1
    if deaths > RETRIES:
        row = {"status": Status.ERROR, "error": f"its process died {deaths} times", "cohort_size": len(cells)}
        return [Result(cell, row) for cell in cells], []
    say(f"the process that trained {len(cells)} cells died; they continue from their last checkpoint")
    return [], _attempts(cells, work, deaths)


class _Locks:
    """The cells that this driver has locked; at the end of the ``with`` statement none."""

    def __init__(self, paths: Paths, missing: Missing) -> None:
        self._paths, self._tries = paths, missing.tries
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, cells: Sequence[Cell]) -> list[Cell]:
        """Lock those cells that are free and that no other process has tried meanwhile."""
        mine = []
        for cell in cells:
            stack = contextlib.ExitStack()
            if stack.enter_context(locks.held(self._paths.locks, [cell.id])):
                self._held[cell.id] = stack
                mine.append(cell)
        tried = count_tries(store.read(self._paths.rows))
        for cell in mine:
            if tried[cell.id] != self._tries[cell.id]:
                self.release(cell)
        return [cell for cell in mine if cell.id in self._held]

    def release(self, cell: Cell) -> None:
        self._held.pop(cell.id).close()

    def __enter__(self) -> _Locks:
        return self

    def __exit__(self, *error: object) -> None:
        while self._held:
            self._held.popitem()[1].close()
