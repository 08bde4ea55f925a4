"""Progress on stderr: one bar per cohort in a terminal or a notebook, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from tqdm.auto import tqdm

from kdbench.train.callbacks import Progress

FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"
PAUSE = 60.0  # seconds between the lines of a log


def to_stderr(text: str) -> None:
    """A line for the user, at once; data goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def shown() -> Progress:
    """The kind of progress that suits this process's stderr."""
    return Bar() if sys.stderr.isatty() or _in_notebook() else Log()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code: its stderr is no terminal, and yet it shows bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


class Bar(Progress):
    """Epoch, share done, time left, images/s over all students, and the current accuracy of every method.

    position: the line of the bar below the cursor, where several are shown.
    """

    def __init__(self, position: int | None = None) -> None:
        self.position = position

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        tqdm.write(text, file=sys.stderr)

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """Open the bar."""
        self.cells, self.epochs, self.accuracy = cells, epochs, ""
        self.bar = tqdm(
            total=epochs * steps,
            initial=done,
            dynamic_ncols=True,
            leave=False,
            bar_format=FORMAT,
            file=sys.stderr,
            position=self.position,
        )
        self._title(done // steps + 1)

    def step(self, images: int) -> None:
        """Advance the bar by one step."""
        rate = self.bar.format_dict["rate"]
        if rate and self.bar.n % 20 == 0:
            speed = f"{rate * images * self.cells:.0f} images/s"
            self.bar.set_postfix_str(f"{speed} {self.accuracy}", refresh=False)
        self.bar.update()

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Show the accuracy of every method."""
        self.accuracy = _text(accuracy)
        self._title(min(epoch + 1, self.epochs))

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self.say(f"WARNING: {text}")

    def end(self) -> None:
        """Close the bar."""
        self.bar.close()

    def lane(self, number: int) -> Progress:
        """A bar on the line ``number``."""
        return Bar(number)

    def _title(self, epoch: int) -> None:
        self.bar.set_description_str(f"{self.cells} students, epoch {epoch}/{self.epochs}")


class Log(Progress):
    """After an epoch, but at most once per minute, what `Bar` shows; short trainings write nothing."""

    def say(self, text: str) -> None:
        """Print a line."""
        to_stderr(text)

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """Start the clock."""
        self.cells, self.epochs, self.first = cells, epochs, done / steps
        self.started = self.written = time.monotonic()

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Print a line if the last one is older than `PAUSE`."""
        now = time.monotonic()
        if now - self.written >= PAUSE:
            self.written = now
            left = (now - self.started) / (epoch - self.first) * (self.epochs - epoch)
            title = f"{self.cells} students, epoch {epoch}/{self.epochs} done"
            to_stderr(f"{title}, {timedelta(seconds=round(left))} left; {_text(accuracy)}".rstrip("; "))

    def warn(self, text: str) -> None:
        """Print a warning."""
        to_stderr(f"WARNING: {text}")

    def lane(self, number: int) -> Progress:
        """A log with a clock of its own."""
        return Log()


def _text(accuracy: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in accuracy.items())
