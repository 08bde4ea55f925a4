"""The driver: cohorts go to an executor, their results come back one by one. It alone locks, splits and retries."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench.errors import first_line
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.results.attempts import Attempts
from kdbench.runner.executors.base import Done, Executor, Preempted, now
from kdbench.runner.inputs import Inputs
from kdbench.runner.missing import Missing, positions
from kdbench.runner.paths import Paths
from kdbench.runner.stop import Stop
from kdbench.runner.workspace import Say
from kdbench.train.job import Result
from kdbench.utils import locks
from kdbench.utils.status import Status

RETRIES = 3  # of a cohort whose process dies


@dataclass(frozen=True)
class Finished:
    """A cell's result, and where and when it trained (see `executors.base.Done`)."""

    result: Result
    source: Mapping[str, Any]


@dataclass(frozen=True)
class _Attempt:
    """A locked cohort. ``started``: when it was submitted. ``deaths``: how many processes have died on it."""

    cells: Sequence[Cell]
    started: str = ""
    deaths: int = 0


def train(
    missing: Missing, inputs: Inputs, executor: Executor, attempts: Attempts, say: Say, stop: Stop
) -> Iterator[Finished]:
    """Train what is missing, and yield each result: its cell is locked until the next one is taken.

    Left out are cells that another process has locked, or has tried since ``missing`` was planned.
    """
    paths = inputs.workspace.paths
    submitted = executor.submitted(missing.cells)
    known = {cell.id for cohort in submitted for cell in cohort}
    waiting = deque(form_cohorts([cell for cell in missing.cells if cell.id not in known], {}))
    ready: deque[_Attempt] = deque()
    running: dict[Future[Done], _Attempt] = {}
    with _Locks(paths, missing, attempts) as held:
        for cohort in submitted:  # as a whole, or not at all where another driver collects it
            if len(mine := held.take(cohort)) == len(cohort):
                ready.append(_Attempt(mine))
        while True:
            while len(running) < executor.slots and (ready or waiting) and not stop():
                if ready:
                    attempt = replace(ready.popleft(), started=now())
                    running[executor.submit(inputs.job(attempt.cells))] = attempt
                else:
                    ready.extend(_attempts(held.take(waiting.popleft()), paths.work))
            if not running:
                return
            for future in executor.wait(running):
                attempt = running.pop(future)
                done, again = _collect(future, attempt, paths.work, say, stop)
                ready.extendleft(reversed(again))
                for result in done.results:
                    yield Finished(result, done.source)
                    held.release(result.cell)


def _attempts(cells: Sequence[Cell], work: Path, deaths: int = 0) -> list[_Attempt]:
    """Cohorts of cells that go on from equal positions."""
    return [_Attempt(cohort, deaths=deaths) for cohort in form_cohorts(cells, positions(work, cells))]


def _collect(
    future: Future[Done], attempt: _Attempt, work: Path, say: Say, stop: Stop
) -> tuple[Done, Sequence[_Attempt]]:
    """What an attempt gave, and what is to be tried in its place where it failed as a whole."""
    results: Sequence[Result] = []
    again: Sequence[_Attempt] = []
    try:
        return future.result(), []
    except torch.OutOfMemoryError as error:
        results, again = _split(attempt, str(error), work, say)
    except Preempted:
        say(f"the machine that trained {len(attempt.cells)} cells is taken away; they go on elsewhere")
        again = _attempts(attempt.cells, work, attempt.deaths)
    except BrokenExecutor as error:
        if not stop():
            results, again = _retry(attempt, first_line(error), work, say)
    return Done(list(results), False, {"started_utc": attempt.started}), again


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


def _retry(
    attempt: _Attempt, reason: str, work: Path, say: Say
) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """The same cells from their last checkpoint; after ``RETRIES`` they are recorded as failed."""
    cells, deaths = attempt.cells, attempt.deaths + 1
    if deaths > RETRIES:
        error = f"its process died {deaths} times, at last: {reason}"
        row = {"status": Status.ERROR, "error": error, "cohort_size": len(cells)}
        return [Result(cell, row) for cell in cells], []
    say(f"the process that trained {len(cells)} cells died; they continue from their last checkpoint")
    return [], _attempts(cells, work, deaths)


class _Locks:
    """The cells that this driver has locked; at the end of the ``with`` statement none."""

    def __init__(self, paths: Paths, missing: Missing, attempts: Attempts) -> None:
        self._paths, self._planned, self._attempts = paths, missing.tries, attempts
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, cells: Sequence[Cell]) -> list[Cell]:
        """Lock those cells that are free and that no other process has tried meanwhile."""
        mine = []
        for cell in cells:
            stack = contextlib.ExitStack()
            if stack.enter_context(locks.held(self._paths.locks, [cell.id])):
                self._held[cell.id] = stack
                mine.append(cell)
        self._attempts.refresh()
        for cell in mine:
            if self._attempts.tries(cell.id) != self._planned[cell.id]:
                self.release(cell)
        return [cell for cell in mine if cell.id in self._held]

    def release(self, cell: Cell) -> None:
        self._held.pop(cell.id).close()

    def __enter__(self) -> _Locks:
        return self

    def __exit__(self, *error: object) -> None:
        while self._held:
            self._held.popitem()[1].close()
