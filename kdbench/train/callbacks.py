"""What the training loop reports while it runs: the one interface of bars, logs, `kdbench status` and trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell

Cells = Sequence["Cell"]
Curve = Sequence[tuple[int, str, float]]  # (epoch from 1, name of the value, value)


class Progress:
    """What is reported while cohorts train; this one shows nothing."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def plan(self, cohorts: Sequence[Cells], purpose: str = "") -> None:
        """What is trained from here on; ``purpose`` names it where it is no cell of the results, such as a teacher."""

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """A cohort starts (or continues) after ``done`` of ``epochs`` x ``steps`` steps."""

    def step(self, images: int) -> None:
        """One batch is done."""

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Epoch ``epoch`` (from 1) is done. measured: cell id -> loss, its terms and accuracies in percent."""

    def end(self) -> None:
        """The cohort is over."""

    def record(self, cell: Cell, row: Mapping[str, Any], curve: Curve) -> None:
        """A row is written; ``curve`` holds the values of all its epochs."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def lane(self, number: int) -> Progress:
        """The progress of a cohort that trains beside others, in place ``number`` (from 0) of them."""
        return self


def _each(name: str) -> Any:
    """The method of `Together` that calls the method ``name`` of every part."""

    def report(self: Together, *arguments: Any) -> None:
        for part in self.parts:
            getattr(part, name)(*arguments)

    return report


class Together(Progress):
    """Reports to several."""

    def __init__(self, *parts: Progress) -> None:
        self.parts = parts

    say, plan, begin, step, epoch, end, record, warn = map(
        _each, ("say", "plan", "begin", "step", "epoch", "end", "record", "warn")
    )

    def lane(self, number: int) -> Progress:
        """Lanes of all parts."""
        return Together(*(part.lane(number) for part in self.parts))
