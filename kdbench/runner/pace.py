"""How far a run is over all its cohorts, and how long the rest takes at the pace of what is done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kdbench.train.callbacks import Cells

LEAST = 1.0  # seconds of training before there is a pace


@dataclass
class Training:
    """A cohort that trains: ``step`` of ``epochs`` x ``steps`` steps are done.

    purpose: what it is where it is none of the results' ('teacher resnet56'), or ''. place: 'cohort 2 of 6', or ''.
    """

    cells: Cells
    epochs: int
    steps: int
    step: int
    purpose: str
    place: str
    began: float = field(default_factory=lambda: time.monotonic())
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.step

    @property
    def epoch(self) -> int:
        """The epoch that is being trained, from 1."""
        return min(self.step // self.steps + 1, self.epochs)

    @property
    def done(self) -> int:
        """The number of whole epochs that are done."""
        return self.step // self.steps

    def seconds_left(self) -> float | None:
        """How long this cohort alone still takes, at its own pace; None before there is one."""
        trained = self.step - self.first
        if not trained:
            return None
        return (time.monotonic() - self.began) / trained * (self.epochs * self.steps - self.step)


class Pace:
    """The work of a run in student-epochs: what is left of each cell, and how much was done since `plan`.

    Cohorts may train side by side, again after a failure, or in parts: what counts is how far each cell is.
    """

    def __init__(self) -> None:
        self.plan([])

    def plan(self, cohorts: list[Cells], purpose: str = "") -> None:
        """Start anew with these cohorts."""
        self.purpose, self.cohorts = purpose, len(cohorts)
        self._number = {cell.id: number for number, cells in enumerate(cohorts, 1) for cell in cells}
        self._left = {cell.id: float(cell.recipe.epochs) for cells in cohorts for cell in cells}
        self._worked, self._since = 0.0, 0.0

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> Training:
        """A cohort begins; what its checkpoint holds is not to be done."""
        self._since = self._since or time.monotonic()
        for cell in cells:
            self._left[cell.id] = epochs - done / steps
        return Training(cells, epochs, steps, done, self.purpose, self._place(cells))

    def _place(self, cells: Cells) -> str:
        if self.cohorts < 2 or not cells or cells[0].id not in self._number:
            return ""
        return f"cohort {self._number[cells[0].id]} of {self.cohorts}"

    def advance(self, training: Training) -> None:
        """A cohort made a step."""
        training.step += 1
        for cell in training.cells:
            self._left[cell.id] -= 1 / training.steps
        self._worked += len(training.cells) / training.steps

    def finish(self, cell_id: str) -> None:
        """A cell is recorded: nothing of it is left, however far it came."""
        self._left.pop(cell_id, None)

    def seconds_left(self) -> float | None:
        """How long all that is left takes at the pace so far; None before there is one."""
        elapsed = time.monotonic() - self._since
        if not self._worked or elapsed < LEAST:
            return None
        return elapsed / self._worked * max(sum(self._left.values()), 0.0)
