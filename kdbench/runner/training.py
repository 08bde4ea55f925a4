"""The driver: cohorts go to an executor, their results come back as they finish. It alone locks, splits and retries."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kdbench.errors import first_line
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import Position, form_cohorts
from kdbench.runner.executors import open_executor
from kdbench.runner.executors.base import Done, Executor, now
from kdbench.runner.stop import Stop
from kdbench.runner.workspace import Say, Workspace
from kdbench.train.callbacks import Progress
from kdbench.train.checkpoint import positions
from kdbench.train.job import Job, Result
from kdbench.utils import locks
from kdbench.utils.status import Status

RETRIES = 3  # of a cohort whose process dies, from one position


@dataclass(frozen=True)
class _Attempt:
    """A locked cohort.

    start: the position from which it trains. started: when it was submitted. deaths: how many processes have died on it
    from this position on.
    """

    cells: Sequence[Cell]
    start: Position = (0, 0)
    started: str = ""
    deaths: int = 0


def train(
    cohorts: Iterable[Sequence[Cell]],
    job: Callable[[Sequence[Cell]], Job],
    held: Locks,
    executor: Executor,
    work: Path,
    say: Say,
    stop: Stop,
) -> Iterator[Done]:
    """Train cohorts, and yield the results of each: its cells are locked until the next one is taken.

    Left out are cells that ``held`` does not give. job: makes the job of such cells. work: folder of checkpoints.
    """
    cohorts = [list(cohort) for cohort in cohorts]
    submitted = executor.submitted([cell for cohort in cohorts for cell in cohort])
    known = {cell.id for cohort in submitted for cell in cohort}
    waiting = deque([cell for cell in cohort if cell.id not in known] for cohort in cohorts)
    ready: deque[_Attempt] = deque()
    running: dict[Future[Done], _Attempt] = {}
    for cohort in submitted:  # as a whole, or not at all where another driver collects it
        if len(mine := held.take(cohort)) == len(cohort):
            ready.append(_Attempt(mine))
    while True:
        while len(running) < executor.slots and (ready or waiting) and not stop():
            if ready:
                attempt = replace(ready.popleft(), started=now())
                running[executor.submit(job(attempt.cells))] = attempt
            else:
                ready.extend(_attempts(held.take(waiting.popleft()), work))
        if not running:
            return
        for future in executor.wait(running):
            attempt = running.pop(future)
            done, again = _collect(future, attempt, work, say, stop)
            ready.extendleft(reversed(again))
            if done.results:
                yield done
            for result in done.results:
                held.release(result.cell)


def _attempts(cells: Sequence[Cell], work: Path, deaths: int = 0) -> list[_Attempt]:
    """Cohorts of cells that go on from equal positions."""
    reached = positions(work, cells)
    cohorts = form_cohorts(cells, reached)
    return [_Attempt(cohort, reached.get(cohort[0].id, (0, 0)), deaths=deaths) for cohort in cohorts]


def _collect(
    future: Future[Done], attempt: _Attempt, work: Path, say: Say, stop: Stop
) -> tuple[Done, Sequence[_Attempt]]:
    """What an attempt gave, and what is to be tried in its place where it failed as a whole."""
    results: Sequence[Result] = []
    again: Sequence[_Attempt] = []
    try:
        done = future.result()
        return _go_on(done, attempt, work, say) if done.stopped and not stop() else (done, [])
    except torch.OutOfMemoryError as error:
        results, again = _split(attempt, str(error), work, say)
    except BrokenExecutor as error:
        if not stop():
            results, again = _retry(attempt, first_line(error), work, say)
    return Done(list(results), False, {"started_utc": attempt.started}), again


def _go_on(done: Done, attempt: _Attempt, work: Path, say: Say) -> tuple[Done, Sequence[_Attempt]]:
    """What is final of a job that was stopped, not by this run: its machine is taken away; the rest is tried again."""
    final = [result for result in done.results if result.row["status"] != Status.INTERRUPTED]
    closed = {result.cell.id for result in final}
    left = [cell for cell in attempt.cells if cell.id not in closed]
    say(f"the machine that trained {len(left)} cells is taken away; they go on elsewhere")
    return replace(done, results=final), _attempts(left, work, attempt.deaths)


def _split(
    attempt: _Attempt, reason: str, work: Path, say: Say
) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """Two halves; a single cell that does not fit is recorded so."""
    cells = attempt.cells
    if len(cells) == 1:
        return [Result(cells[0], {"status": Status.OOM, "error": reason, "cohort_size": 1})], []
    say(f"out of memory with {len(cells)} students side by side; training them in two halves")
    return [], _halves(cells, work)


def _halves(cells: Sequence[Cell], work: Path) -> list[_Attempt]:
    half = len(cells) // 2
    return [each for part in (cells[:half], cells[half:]) for each in _attempts(part, work)]


def _retry(
    attempt: _Attempt, reason: str, work: Path, say: Say
) -> tuple[Sequence[Result], Sequence[_Attempt]]:
    """The same cells from their last checkpoint; after ``RETRIES`` two halves, and a single cell is recorded as failed.

    So a method that ends its process takes no other one with it.
    """
    cells, deaths = attempt.cells, attempt.deaths + 1
    reached = positions(work, cells)
    if any(reached.get(cell.id, (0, 0)) != attempt.start for cell in cells):
        deaths = 1
    if deaths > RETRIES and len(cells) > 1:
        say(f"the process that trained {len(cells)} cells died {deaths} times; training them in two halves")
        return [], _halves(cells, work)
    if deaths > RETRIES:
        error = f"its process died {deaths} times, at last: {reason}"
        return [Result(cells[0], {"status": Status.ERROR, "error": error, "cohort_size": 1})], []
    say(f"the process that trained {len(cells)} cells died; they continue from their last checkpoint")
    return [], _attempts(cells, work, deaths)


@contextlib.contextmanager
def side_by_side(
    cohorts: Sequence[Sequence[Cell]],
    job: Callable[[Sequence[Cell]], Job],
    left: Callable[[Sequence[Cell]], Iterable[Cell]],
    workspace: Workspace,
    progress: Progress,
    stop: Stop,
    folder: Path | None = None,
) -> Iterator[tuple[Executor, Iterator[Done]]]:
    """`train` by the executor of the workspace's options; gives that executor and what `train` yields.

    left: as `Locks` takes it. folder: of the locks; None: that of all training.
    """
    options, paths = workspace.options, workspace.paths
    with (
        open_executor(options, workspace.devices, len(cohorts), paths, progress, stop) as executor,
        Locks(folder or paths.locks, left) as held,
    ):
        yield executor, train(cohorts, job, held, executor, paths.work, progress.say, stop)


class Locks:
    """The cells that this driver has locked; at the end of the ``with`` statement none.

    folder: of the lock files. left: those of some cells that no other process has trained meanwhile.
    """

    def __init__(self, folder: Path, left: Callable[[Sequence[Cell]], Iterable[Cell]]) -> None:
        self._folder, self._left = folder, left
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, cells: Sequence[Cell]) -> list[Cell]:
        """Lock those cells that are free and left."""
        mine = []
        for cell in cells:
            stack = contextlib.ExitStack()
            if stack.enter_context(locks.held(self._folder, [cell.id])):
                self._held[cell.id] = stack
                mine.append(cell)
        left = {cell.id for cell in self._left(mine)}
        for cell in mine:
            if cell.id not in left:
                self.release(cell)
        return [cell for cell in mine if cell.id in left]

    def release(self, cell: Cell) -> None:
        """Give a cell back."""
        self._held.pop(cell.id).close()

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *error: object) -> None:
        while self._held:
            self._held.popitem()[1].close()
