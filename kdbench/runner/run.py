"""The driver: plan, teachers, locks, cohorts, rows. `run` is the Python form of `kdbench run`."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.results import store
from kdbench.runner.describe import estimate
from kdbench.runner.executors.processes import crew
from kdbench.runner.fill_cache import fill
from kdbench.runner.progress import to_stderr
from kdbench.runner.record import record
from kdbench.runner.session import Session, done_ids, positions, prepare, records_of
from kdbench.runner.teachers import announce_teacher, ensure_teacher
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result
from kdbench.utils import environment, locks
from kdbench.utils.status import Status

LONG_PLAN = 8  # cells; a plan this long says what it will take before it starts


@dataclass
class Outcome:
    """What a run came to. ``signal``: the number of the signal that stopped it, or None."""

    suite: str
    cells: list[Cell]
    records: pd.DataFrame
    elsewhere: int = 0
    signal: int | None = None
    out_of_time: bool = False

    @property
    def notes(self) -> list[str]:
        """What the user should know beside the numbers."""
        notes = []
        if self.elsewhere:
            notes.append(f"{self.elsewhere} cells are being trained by another process; see `kdbench status`")
        if (self.out_of_time and not self.complete) or self.signal is not None:
            notes.append("stopped before the end, state saved: type the same command to go on")
        return notes

    @property
    def complete(self) -> bool:
        """Every cell is done or being trained by another process."""
        return self.records["status"].isin([Status.OK, Status.SKIPPED]).sum() + self.elsewhere >= len(
            self.cells
        )

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some cells failed or are left, 128 + signal when interrupted."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.complete else 3


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int | None]]:
    """Turn SIGINT and SIGTERM into a question that the loop asks; yields () -> signal number or None."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(number: int, frame: Any) -> None:
        if caught:  # asked twice: go at once
            sys.exit(128 + number)
        caught.append(number)
        to_stderr("stopping after this step; the state is being saved")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: caught[0] if caught else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    suite: str = "digits",
    methods: Sequence[str] | None = None,
    *,
    jobs: int = 1,
    force: bool = False,
    max_hours: float | None = None,
    progress: Progress | None = None,
    **selection: Any,
) -> Outcome:
    """Train every missing cell of a selection and record it under ``results``; what is done is not done again.

    Takes the options of `kdbench run` (see `prepare` for the others): ``run("digits", ["kd", "bickd"], seeds=[0])``.
    ``jobs``: how many processes train cohorts side by side. Raises KdbenchError for bad input.
    """
    if jobs < 1:
        raise KdbenchError(f"jobs must be at least 1, got {jobs}")
    deadline = time.monotonic() + max_hours * 3600 if max_hours is not None else float("inf")
    with _signals() as caught:

        def stop() -> bool:
            return caught() is not None or time.monotonic() > deadline

        session = prepare(suite, methods, stop=stop, **selection)
        store.check_writable(session.paths.rows)
        show = progress or Progress()
        if not stop() and _teachers_ready(session, show):
            tries = _missing(session, force)
            told = {key: value for key, value in selection.items() if key != "say"}
            request = {"suite": suite, "methods": methods, "tries": tries, **told}
            with crew(min(jobs, len(_groups(session, tries))) or 1, request, stop):
                _train(session, tries, show)
        cells = session.cells()
        records = records_of(session, cells)
        busy = set(locks.running(session.paths.locks)) - done_ids(records)
        return Outcome(
            suite=session.suite.name,
            cells=cells,
            records=records,
            elsewhere=len(busy.intersection(cell.id for cell in cells)),
            signal=caught(),
            out_of_time=time.monotonic() > deadline,
        )


def help_out(suite: str, methods: Sequence[str] | None, tries: Mapping[str, int], **selection: Any) -> None:
    """Train what is free of the cells in ``tries``, as `run` in another process told; its teachers are there."""
    with _signals() as caught:
        session = prepare(
            suite, methods, stop=lambda: caught() is not None, say=lambda text: None, **selection
        )
        if _teachers_ready(session, Progress()):
            session.say = to_stderr
            _train(session, tries, Progress())


def train_teachers(suite: str, progress: Progress | None = None, **selection: Any) -> int:
    """Have every teacher of a suite ready, whatever becomes of the others.

    Returns the exit code: 0, 3 where one could not be had (told on the way), 128 + signal when interrupted.
    """
    with _signals() as caught:
        session = prepare(suite, ["kd"], stop=lambda: caught() is not None, **selection)
        failed = False
        for name in session.needed_teachers():
            try:
                if not ensure_teacher(session, name, progress or Progress(), train=True):
                    break
                announce_teacher(session, name)
            except KdbenchError as error:
                session.say(f"kdbench: {error}")
                failed = True
        number = caught()
        return 128 + number if number is not None else 3 * failed


def fill_cache(suite: str, progress: Progress | None = None, **selection: Any) -> int:
    """Fill the cache ``teacher_cache`` for every teacher of a suite; returns the exit code (130, 143 interrupted)."""
    with _signals() as caught:
        session = prepare(suite, ["kd"], stop=lambda: caught() is not None, **selection)
        for line in fill(session, progress or Progress()):
            session.say(line)
        number = caught()
        return 0 if number is None else 128 + number


def _teachers_ready(session: Session, progress: Progress) -> bool:
    for name in session.needed_teachers():
        if not ensure_teacher(session, name, progress):
            return False
        announce_teacher(session, name)
    return True


def _missing(session: Session, force: bool) -> dict[str, int]:
    """The cells to train (id -> how often each was tried), announced."""
    cells = session.cells()
    records = records_of(session, cells)
    _warn_edited(session, records)
    done = set() if force else done_ids(records)
    missing = [cell for cell in cells if cell.id not in done]
    if len(missing) >= LONG_PLAN:
        session.say(f"{len(missing)} cells to train; {estimate(store.read(session.paths.rows), missing)}")
    tried = _tries(session)
    return {cell.id: tried[cell.id] for cell in missing}


def _tries(session: Session) -> Counter[str]:
    """Cell id -> how many rows it has, those that were cut short left out."""
    rows = store.read(session.paths.rows)
    return Counter(rows.loc[rows["status"] != Status.INTERRUPTED, "cell_id"])


def _groups(session: Session, tries: Mapping[str, int]) -> list[list[Cell]]:
    return form_cohorts([cell for cell in session.cells() if cell.id in tries], {})


def _train(session: Session, tries: Mapping[str, int], progress: Progress) -> None:
    """Train those of the cells in ``tries`` that are free, and that no other process tried meanwhile."""
    source = environment.collect(session.device)
    for group in _groups(session, tries):
        with locks.held(session.paths.locks, [cell.id for cell in group]) as free:
            tried = _tries(session)
            mine = [cell for cell in group if cell.id in free and tried[cell.id] == tries[cell.id]]
            for cohort in form_cohorts(mine, positions(session.paths.work, mine)):
                started = datetime.now(UTC).isoformat(timespec="seconds")
                for result in _train_or_split(session, cohort, progress):
                    record(session, result, {**source, "started_utc": started})
                if session.stop():
                    return


def _train_or_split(session: Session, cells: list[Cell], progress: Progress) -> list[Result]:
    """Train a cohort; out of memory, train its halves; a single cell that does not fit is recorded so."""
    name = next((cell.teacher for cell in cells if cell.teacher), None)
    teacher = session.teachers[name] if name else None
    job = Job(
        tuple(cells),
        teacher,
        session.data_dir,
        session.paths.work,
        session.device,
        session.plugins,
        session.teacher_cache,
        session.graphs,
    )
    try:
        return train_cohort(job, progress, session.stop)[0]
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(cells) == 1:
        return [Result(cells[0], {"status": Status.OOM, "error": reason, "cohort_size": 1})]
    session.say(f"out of memory with {len(cells)} students side by side; training them in two halves")
    half = len(cells) // 2
    return [
        result
        for part in (cells[:half], cells[half:])
        if not session.stop()
        for cohort in form_cohorts(part, positions(session.paths.work, part))
        for result in _train_or_split(session, cohort, progress)
    ]


def _warn_edited(session: Session, records: pd.DataFrame) -> None:
    for name in session.methods:
        hashes = records.loc[(records["method"] == name) & (records["status"] == Status.OK), "code_hash"]
        if (hashes != registry.code_hash(name)).any():
            session.say(
                f"WARNING: the code of {name} changed since rows of this version were made; if it gives other numbers, "
                "raise its `version` and run again"
            )
