"""Progress on stderr: one bar a cohort; silent when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from kdbench.job import Progress


class Bar(Progress):
    """images/s, time left, epoch and the current accuracy of every method."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.epochs = 0

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        self.epochs = epochs
        self.bar = tqdm(
            total=epochs * steps, initial=done, disable=None, unit="step", dynamic_ncols=True, leave=False
        )
        self.bar.set_description(f"{cells} students, epoch {done // steps + 1}/{epochs}")
        self.cells = cells

    def step(self, images: int) -> None:
        if self.bar is None:
            return
        self.bar.update()
        rate = self.bar.format_dict["rate"]
        if rate and self.bar.n % 20 == 0:
            self.bar.unit = f"step, {rate * images * self.cells:.0f} images/s"

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        if self.bar is not None:
            self.bar.set_description(
                f"{self.cells} students, epoch {min(epoch + 1, self.epochs)}/{self.epochs}"
            )
            self.bar.set_postfix_str(" ".join(f"{name} {value:.1f}" for name, value in accuracy.items()))

    def warn(self, text: str) -> None:
        tqdm.write(f"WARNING: {text}", file=sys.stderr)

    def end(self) -> None:
        if self.bar is not None:
            self.bar.close()
