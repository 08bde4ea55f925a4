"""Progress between processes: a `Reporter` turns calls into messages, and a `Display` turns these into calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kdbench.train.callbacks import Cells, Progress

Message = tuple[str, tuple[Any, ...]]  # a method of Progress and its arguments


class Reporter(Progress):
    """Sends what is reported as messages. Steps and epochs are gathered for ``pause`` seconds."""

    def __init__(self, send: Callable[[list[Message]], object], pause: float) -> None:
        self._send, self._pause = send, pause
        self._waiting: list[Message] = []
        self._sent = 0.0

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            self._send(self._waiting)
        self._waiting, self._sent = [], time.monotonic()

    def _add(self, name: str, *arguments: Any, at_once: bool = True) -> None:
        self._waiting.append((name, arguments))
        if at_once or time.monotonic() - self._sent > self._pause:
            self.flush()

    def say(self, text: str) -> None:
        """Send a line."""
        self._add("say", text)

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Send that a cohort starts."""
        self._add("begin", cells, epochs, steps, done)

    def step(self, images: int) -> None:
        """Note one batch."""
        self._add("step", images, at_once=False)

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Note the end of an epoch."""
        self._add("epoch", epoch, measured, at_once=False)

    def warn(self, text: str) -> None:
        """Send a warning."""
        self._add("warn", text)

    def end(self) -> None:
        """Send that the cohort is over."""
        self._add("end")


class Display:
    """Shows one job after the other on ``progress``."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._open = progress, False

    def show(self, messages: Iterable[Message]) -> None:
        """Pass on what a reporter has sent."""
        for name, arguments in messages:
            self._open = name != "end" and (self._open or name == "begin")
            getattr(self._progress, name)(*arguments)

    def close(self) -> None:
        """The job is over, also where it died before it said so."""
        if self._open:
            self._progress.end()
        self._open = False
