"""Progress on stderr: one bar a cohort; silent when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from kdbench.job import Progress

FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"


class Bar(Progress):
    """Epoch, share done, time left, images/s over all students, and the current accuracy of every method."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        self.cells, self.epochs, self.accuracy = cells, epochs, ""
        self.bar = tqdm(
            total=epochs * steps,
            initial=done,
            disable=None,
            dynamic_ncols=True,
            leave=False,
            bar_format=FORMAT,
            file=sys.stderr,
        )
        self._title(done // steps + 1)

    def step(self, images: int) -> None:
        rate = self.bar.format_dict["rate"]
        if rate and self.bar.n % 20 == 0:
            speed = f"{rate * images * self.cells:.0f} images/s"
            self.bar.set_postfix_str(f"{speed} {self.accuracy}", refresh=False)
        self.bar.update()

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        self.accuracy = " ".join(f"{name} {value:.1f}" for name, value in accuracy.items())
        self._title(min(epoch + 1, self.epochs))

    def warn(self, text: str) -> None:
        tqdm.write(f"WARNING: {text}", file=sys.stderr)

    def end(self) -> None:
        self.bar.close()

    def _title(self, epoch: int) -> None:
        self.bar.set_description_str(f"{self.cells} students, epoch {epoch}/{self.epochs}")
