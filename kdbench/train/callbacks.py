"""What the training loop reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping


class Progress:
    """What is reported while cohorts train; this one shows nothing."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """A cohort starts (or continues) after ``done`` of ``epochs`` x ``steps`` steps."""

    def step(self, images: int) -> None:
        """One batch is done."""

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Epoch ``epoch`` (from 1) is done; ``accuracy`` by method, in percent."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def end(self) -> None:
        """The cohort is over."""

    def lane(self, number: int) -> Progress:
        """The progress of a cohort that trains beside others, in place ``number`` (from 0) of them."""
        return self
