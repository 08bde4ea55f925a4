"""Times the cohort loop in blocks of steps, with turns of other loops in between, and splits the time by part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kdbench.errors import KdbenchError
from kdbench.train.callbacks import Cells, Progress
from kdbench.train.cell_trainer import Trainee
from kdbench.train.cohort import Cohort
from kdbench.train.job import Job
from kdbench.utils.status import Status
from kdbench.utils.timer import Stopwatch


@dataclass(frozen=True)
class Seconds:
    """Seconds of one block of steps. ``students`` holds their ``losses``: forward, loss, backward, optimiser's step."""

    total: float
    teacher: float
    students: float
    losses: float

    @property
    def shares(self) -> dict[str, float]:
        """Of the total, adding up to 1. losses: the formulas' forward alone; data: batches and the rest of the loop."""
        parts = {"teacher": self.teacher, "students": self.students - self.losses, "losses": self.losses}
        shares = {name: value / self.total for name, value in parts.items()}
        return {"data": 1 - sum(shares.values()), **shares}


def now(device: torch.device) -> float:
    """Seconds on the clock, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def watched(owner: Any, name: str, watch: Stopwatch) -> None:
    """Run ``watch`` during each call of ``owner.name``."""
    call = getattr(owner, name)

    def running(*args: Any, **options: Any) -> Any:
        with watch.running():
            return call(*args, **options)

    object.__setattr__(owner, name, running)  # a method is a frozen dataclass


class Blocks(Progress):
    """A cohort that trains by its real loop: ``warmup`` steps, then blocks of ``steps`` steps until its data end.

    After the warm-up and after each block ``between`` is called, off the clock. Raises KdbenchError for a method that
    cannot train on this pair; ``may_skip``: unless it says so itself.
    """

    def __init__(
        self,
        job: Job,
        warmup: int,
        steps: int,
        between: Callable[[], None] = lambda: None,
        may_skip: bool = False,
    ) -> None:
        self.warmup, self.steps, self.between, self.done = warmup, steps, between, 0
        self.device, self.may_skip = torch.device(job.device), may_skip
        self.teacher, self.losses = Stopwatch(self.device), Stopwatch(self.device)
        self.blocks: list[Seconds] = []
        self.cohort = Cohort(job, self)
        for cell in job.cells:
            if cell.id in self.cohort.failures:
                raise KdbenchError(f"cannot be timed: {self.cohort.failures[cell.id]}")
        self._recorded = bool(
            job.graphs
        )  # then there is no clock within: all that a step computes counts as students
        if not self._recorded:
            if self.cohort.teacher is not None:
                watched(self.cohort.teacher, "forward", self.teacher)
            for trainee in self.cohort.trainees:
                watched(trainee.method, "loss", self.losses)
        self._check()

    def run(self, stop: Callable[[], bool] = lambda: False) -> list[Seconds]:
        """All blocks in order."""
        self.cohort.run(stop)
        self._check()
        return self.blocks

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Read the clocks when the training starts."""
        self.there = self._read()

    def step(self, images: int) -> None:
        """Count a step; after the warm-up, record the seconds of each block of steps."""
        self.done += 1
        if self.done >= self.warmup and (self.done - self.warmup) % self.steps == 0:
            if self.done > self.warmup:
                clocks = zip(self._read(), self.there, strict=True)
                self.blocks.append(Seconds(*(after - before for after, before in clocks)))
            self.between()
            self.there = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        parts = [trainee.watch for trainee in self.cohort.trainees]
        students = sum(watch.seconds for watch in ([self.cohort.step_watch] if self._recorded else parts))
        return now(self.device), self.teacher.seconds, students, self.losses.seconds

    def trained(self) -> list[Trainee]:
        """The trainees that took part."""
        return [t for t in self.cohort.trainees if t.outcome is None or t.outcome[0] == Status.DIVERGED]

    def _check(self) -> None:
        fine = {Status.OK, Status.DIVERGED}  # random images may well diverge
        if self.may_skip:
            fine.add(Status.SKIPPED)
        for trainee in self.cohort.trainees:
            status, reason = trainee.outcome or (Status.OK, "")
            if status not in fine:
                raise KdbenchError(f"{trainee.cell} cannot be timed: {reason}")


def median_ms(blocks: list[Seconds], steps: int) -> float:
    """Milliseconds per step: the median over blocks of ``steps`` steps."""
    return 1000 * statistics.median(block.total for block in blocks) / steps


def mean_shares(blocks: list[Seconds]) -> dict[str, float]:
    """Shares over all blocks."""
    fields = ("total", "teacher", "students", "losses")
    return Seconds(*(sum(getattr(block, name) for block in blocks) for name in fields)).shares
