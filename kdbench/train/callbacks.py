"""What the training loop reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """What the loop tells while it runs; this one says nothing."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """A cohort starts (or goes on) after ``done`` of ``epochs`` x ``steps`` steps."""

    def step(self, images: int) -> None:
        """One batch is done."""

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Epoch ``epoch`` (from 1) is done; ``accuracy`` by method, in percent."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def end(self) -> None:
        """The cohort is over."""
