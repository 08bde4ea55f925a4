"""Progress on stderr: one bar a cohort in a terminal, now and then a line in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm

from kdbench.train.callbacks import Progress

FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"
PAUSE = 60.0  # seconds between the lines of a log


def to_stderr(text: str) -> None:
    """A line for the user, at once; data goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def shown() -> Progress:
    """What suits this process's stderr."""
    return Bar() if sys.stderr.isatty() else Log()


class Bar(Progress):
    """Epoch, share done, time left, images/s over all students, and the current accuracy of every method."""

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
        """Print a warning above the bar."""
        tqdm.write(f"WARNING: {text}", file=sys.stderr)

    def end(self) -> None:
        """Close the bar."""
        self.bar.close()

    def _title(self, epoch: int) -> None:
        self.bar.set_description_str(f"{self.cells} students, epoch {epoch}/{self.epochs}")


class Log(Progress):
    """After an epoch, but at most once a minute, what `Bar` shows; short trainings say nothing."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """Start the clock."""
        self.cells, self.epochs, self.first = cells, epochs, done / steps
        self.started = self.said = time.monotonic()

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Print a line if the last one is older than `PAUSE`."""
        now = time.monotonic()
        if now - self.said >= PAUSE:
            self.said = now
            left = (now - self.started) / (epoch - self.first) * (self.epochs - epoch)
            title = f"{self.cells} students, epoch {epoch}/{self.epochs} done"
            to_stderr(f"{title}, {timedelta(seconds=round(left))} left; {_text(accuracy)}".rstrip("; "))

    def warn(self, text: str) -> None:
        """Print a warning."""
        to_stderr(f"WARNING: {text}")


def _text(accuracy: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in accuracy.items())
