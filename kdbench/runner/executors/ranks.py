"""One job on several ranks: processes on this machine, started and watched by whatever process executes the job.

The starter trains nothing itself. So a rank that dies, whatever the others wait for, ends all of them at once, and the
job goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from loky.backend import get_context

from kdbench.errors import KdbenchError
from kdbench.runner.executors.child_processes import starting
from kdbench.runner.executors.reports import Display, Reporter
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.collectives import RankLost
from kdbench.train.job import Job, Result
from kdbench.train.ranks import CellsFailed, joined
from kdbench.utils.status import Status
from kdbench.utils.threads import thread_share

POLL = 0.1  # seconds between two looks at progress and at whether to stop
GRACE = 2.0  # seconds that ranks have to say why they end, once one of them has failed

Trained = tuple[list[Result], bool]


def rank_count(job: Job) -> int:
    """The number of ranks of a job where it trains; auto: one per GPU, and one on a CPU."""
    if job.ranks != "auto":
        return int(job.ranks)
    return max(1, torch.cuda.device_count()) if job.device.startswith("cuda") else 1


def train_on_ranks(job: Job, count: int, progress: Progress, stop: Callable[[], bool]) -> Trained:
    """As `train_cohort`, by ``count`` processes; on GPUs each has its own, from the first one on.

    A cell that raises ends them all: it is recorded as failed, and the others go on from their last checkpoint. Raises
    torch.OutOfMemoryError, and BrokenExecutor where a process died.
    """
    if job.device.startswith("cuda") and count > torch.cuda.device_count():
        raise KdbenchError(
            f"{count} ranks need as many GPUs, and there are {torch.cuda.device_count()} here; give fewer --ranks"
        )
    failed: list[Result] = []
    while job.cells:
        try:
            results, stopped = _train(job, count, progress, stop)
            return failed + results, stopped
        except CellsFailed as error:
            cohort_size = len(job.cells)
            for cell in job.cells:
                if reason := error.reasons.get(cell.id):
                    row = {"status": Status.ERROR, "error": reason, "cohort_size": cohort_size}
                    failed.append(Result(cell, row))
            job = replace(job, cells=tuple(c for c in job.cells if c.id not in error.reasons))
    return failed, False


def _train(job: Job, count: int, progress: Progress, stop: Callable[[], bool]) -> Trained:
    display = Display(progress)
    threads = thread_share(torch.get_num_threads(), count)
    with tempfile.TemporaryDirectory(prefix="kdbench-ranks-") as folder, contextlib.ExitStack() as stack:
        stack.callback(display.close)
        seat = _Seat(pickle.dumps(job), count, threads, Path(folder) / "meeting")
        ranks = [stack.enter_context(_Rank(seat, number)) for number in range(count)]
        deadline = math.inf
        while not all(rank.ended for rank in ranks) and time.monotonic() < deadline:
            _listen(ranks, display, POLL)
            if stop():
                for rank in ranks:
                    rank.stop()
            if any(rank.failed for rank in ranks):
                deadline = min(deadline, time.monotonic() + GRACE)
        return _outcome(ranks, progress.say)


def _listen(ranks: Sequence[_Rank], display: Display, seconds: float) -> None:
    """Wait for a message or the end of a process, and take in what there is."""
    pipes = [rank.pipe for rank in ranks if not rank.ended]
    wait([*pipes, *(rank.process.sentinel for rank in ranks if not rank.ended)], seconds)
    for rank in ranks:
        for message in rank.read():
            display.show(message)


def _outcome(ranks: Sequence[_Rank], say: Callable[[str], None]) -> Trained:
    """What the ranks ended with; where several say why, the cause comes before its consequences."""
    for kind in (torch.OutOfMemoryError, CellsFailed, KdbenchError):
        for rank in ranks:
            if isinstance(rank.outcome, kind):
                raise rank.outcome
    for rank in ranks:
        if rank.died:
            reason = f"rank {rank.number} of 0..{len(ranks) - 1} {rank.died}"
            say(f"{reason}; the other ranks end with it")
            raise BrokenExecutor(reason)
    for rank in ranks:
        if isinstance(rank.outcome, Exception) and not isinstance(rank.outcome, RankLost):
            raise rank.outcome
    if isinstance(ranks[0].outcome, tuple):
        return ranks[0].outcome
    raise BrokenExecutor(f"the {len(ranks)} ranks lost each other ({ranks[0].outcome})")


@dataclass(frozen=True)
class _Seat:
    """What every rank is given: the pickled job, how many they are, their threads, and the file where they meet."""

    job: bytes
    count: int
    threads: int
    meeting: Path


class _Rank:
    """The starter's end of one process; at the end of the ``with`` statement the process has ended.

    outcome: results and whether it was stopped, or an exception; None: not known (yet).
    """

    def __init__(self, seat: _Seat, number: int) -> None:
        self.number = number
        self.outcome: Trained | Exception | None = None
        self._stopped = False
        self.pipe, end = multiprocessing.Pipe()
        with starting():
            self.process: Any = get_context("loky").Process(
                target=_run,
                args=(seat, number, end),
                env={"OMP_NUM_THREADS": str(seat.threads)},  # it counts only before torch is imported
            )
            self.process.start()
        end.close()

    def read(self) -> list[Any]:
        """The reports that have arrived; the outcome is noted."""
        reports = []
        with contextlib.suppress(EOFError, OSError):  # it is dead
            while self.outcome is None and self.pipe.poll():
                kind, content = self.pipe.recv()
                if kind == "report":
                    reports.append(content)
                else:
                    self.outcome = pickle.loads(content)
        return reports

    @property
    def ended(self) -> bool:
        """Whether no more is to come."""
        return self.outcome is not None or not self.process.is_alive()

    @property
    def failed(self) -> bool:
        """Whether it ended without results; else the first rank may still measure what all have trained."""
        return self.ended and not isinstance(self.outcome, tuple)

    @property
    def died(self) -> str:
        """How the process ended without an outcome, in words; empty where it did not."""
        if self.outcome is not None or self.process.is_alive():
            return ""
        code = self.process.exitcode
        return f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with {code}"

    def stop(self) -> None:
        """Have the ranks save their state and return, once."""
        if not self._stopped:
            self._stopped = True
            with contextlib.suppress(OSError):
                self.pipe.send("stop")

    def __enter__(self) -> _Rank:
        return self

    def __exit__(self, *error: object) -> None:
        if self.outcome is None or not isinstance(self.outcome, tuple):
            with contextlib.suppress(ProcessLookupError):  # loky's processes have no `kill`
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.pipe.close()


# --- in the process ---


def _run(seat: _Seat, number: int, pipe: Connection) -> None:
    """Train the job on rank ``number`` and send the outcome."""
    torch.set_num_threads(seat.threads)
    stopped = threading.Event()
    threading.Thread(target=_hear, args=(pipe, stopped), daemon=True).start()
    try:
        outcome: Any = _trained(seat, number, pipe, stopped)
    except Exception as error:
        outcome = error
    with contextlib.suppress(OSError):  # the starter has gone
        pipe.send(("outcome", _pickled(outcome)))
    os._exit(0)  # what a broken process group has left waits for nobody


def _trained(seat: _Seat, number: int, pipe: Connection, stopped: threading.Event) -> Trained:
    job: Job = pickle.loads(seat.job)
    if job.device.startswith("cuda"):
        job = replace(job, device=f"cuda:{number}")
        torch.cuda.set_device(number)
    progress = Reporter(lambda messages: _report(pipe, messages), POLL) if number == 0 else Progress()
    with joined(number, seat.count, torch.device(job.device), seat.meeting) as ranks:
        return train_cohort(job, progress, stopped.is_set, ranks)


def _hear(pipe: Connection, stopped: threading.Event) -> None:
    """The starter says when to stop, or has gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    stopped.set()


def _report(pipe: Connection, messages: list[Any]) -> None:
    with contextlib.suppress(OSError):
        pipe.send(("report", messages))


def _pickled(outcome: Any) -> bytes:
    try:
        content = pickle.dumps(outcome)
        pickle.loads(content)
        return content
    except Exception:  # an exception of a kind that cannot be rebuilt
        return pickle.dumps(RuntimeError(f"{type(outcome).__name__}: {outcome}"))
