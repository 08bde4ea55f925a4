"""Progress on stderr: one bar per cohort in a terminal or a notebook, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from kdbench.errors import KdbenchError
from kdbench.runner.pace import Pace, Training
from kdbench.train.callbacks import Cells, Curve, Progress
from kdbench.utils.text import clock

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell

FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"
PAUSE = 60.0  # seconds between the lines of a log


def to_stderr(text: str) -> None:
    """A line for the user, at once; data goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def shown() -> Progress:
    """The kind of progress that suits this process's stderr."""
    return Bar() if sys.stderr.isatty() or _in_notebook() else Log()


def listener(progress: Progress | None) -> Progress:
    """``progress``, or for None what `shown` gives. Raises KdbenchError for what is no Progress."""
    if progress is None:
        return shown()
    if not isinstance(progress, Progress):
        raise KdbenchError(
            f"progress is a kdbench.train.callbacks.Progress (which shows nothing) or an object of a class of yours "
            f"that builds on it, got {progress!r}"
        )
    return progress


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code: its stderr is no terminal, and yet it shows bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


class _Shown(Progress):
    """What `Bar` and `Log` have in common: the run's pace, and the latest accuracy of every cell that trains."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.training: Training
        self.accuracy: dict[str, float] = {}

    def plan(self, cohorts: Sequence[Cells], purpose: str = "") -> None:
        """Count the cohorts."""
        self.pace.plan(list(cohorts), purpose)

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """A cohort begins."""
        self.training, self.accuracy = self.pace.begin(cells, epochs, steps, done), {}

    def step(self, images: int) -> None:
        """A cohort made a step."""
        self.pace.advance(self.training)

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Note the accuracies: on the evaluated images where they were measured, else on those of training."""
        several = len({cell.student for cell in self.training.cells}) > 1
        names = {cell.id: f"{cell} {cell.student}" if several else str(cell) for cell in self.training.cells}
        for cell_id, values in measured.items():
            if top1 := values.get("top1", values.get("train_top1")):
                self.accuracy[names[cell_id]] = top1

    def record(self, cell: Cell, row: Mapping[str, Any], curve: Curve) -> None:
        """A cell is done."""
        self.pace.finish(cell.id)

    def title(self, epoch: int) -> str:
        """'3 students, cohort 2 of 6, epoch 9/30'."""
        training = self.training
        count = len(training.cells)
        who = training.purpose or f"{count} student" + "s" * (count != 1)
        return ", ".join([who, *filter(None, [training.place]), f"epoch {epoch}/{training.epochs}"])

    def accuracies(self) -> str:
        """'kd 24.6, dkd 15.0'."""
        return ", ".join(f"{name} {value:.1f}" for name, value in self.accuracy.items())

    def left_in_all(self) -> str:
        """'0:12:00 left in all' where there are several cohorts."""
        left = self.pace.seconds_left() if self.pace.cohorts > 1 else None
        return "" if left is None else f"{clock(left)} left in all"


class Bar(_Shown):
    """Epoch, share done, time left (of the cohort and in all), images/s over all students, and the accuracies.

    position: the line of the bar below the cursor, where several are shown.
    """

    def __init__(self, position: int | None = None, pace: Pace | None = None) -> None:
        super().__init__(pace)
        self.position = position

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        tqdm.write(text, file=sys.stderr)

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Open the bar."""
        super().begin(cells, epochs, steps, done)
        self.bar = tqdm(
            total=epochs * steps,
            initial=done,
            dynamic_ncols=True,
            leave=False,
            bar_format=FORMAT,
            file=sys.stderr,
            position=self.position,
        )
        self.bar.set_description_str(self.title(self.training.epoch))

    def step(self, images: int) -> None:
        """Advance the bar by one step."""
        super().step(images)
        rate = self.bar.format_dict["rate"]
        if rate and self.bar.n % 20 == 0:
            speed = f"{rate * images * len(self.training.cells):.0f} images/s"
            parts = [self.left_in_all(), self.accuracies(), speed]
            self.bar.set_postfix_str(", ".join(filter(None, parts)), refresh=False)
        self.bar.update()

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Show the next epoch."""
        super().epoch(epoch, measured)
        self.bar.set_description_str(self.title(self.training.epoch))

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self.say(f"WARNING: {text}")

    def end(self) -> None:
        """Close the bar."""
        self.bar.close()

    def lane(self, number: int) -> Progress:
        """A bar on the line ``number``."""
        return Bar(number, self.pace)


class Log(_Shown):
    """After an epoch, but at most once per minute, what `Bar` shows; short trainings write nothing."""

    def say(self, text: str) -> None:
        """Print a line."""
        to_stderr(text)

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Start the clock."""
        super().begin(cells, epochs, steps, done)
        self.written = time.monotonic()

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Print a line if the last one is older than `PAUSE`."""
        super().epoch(epoch, measured)
        now = time.monotonic()
        if now - self.written >= PAUSE:
            self.written = now
            own = self.training.seconds_left()
            left = [f"{clock(own)} left"] if own is not None else []
            times = ", ".join([f"{self.title(epoch)} done", *left, *filter(None, [self.left_in_all()])])
            to_stderr("; ".join(filter(None, [times, self.accuracies()])))

    def warn(self, text: str) -> None:
        """Print a warning."""
        to_stderr(f"WARNING: {text}")

    def lane(self, number: int) -> Progress:
        """A log with a clock of its own."""
        return Log(self.pace)
