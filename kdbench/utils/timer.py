"""Seconds of work, on a processor or a GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Seconds that a cell's own work takes; on a GPU by events, read only when asked for (no sync in between)."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._seconds = 0.0
        self._pending: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        if self.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._pending.append((begin, end))
        else:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the making of each of them is timed."""
        iterator = iter(items)
        while True:
            with self.running():
                item = next(iterator, None)
            if item is None:
                return
            yield item

    @property
    def seconds(self) -> float:
        if self._pending:
            self._pending[-1][1].synchronize()
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._pending) / 1000
            self._pending.clear()
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._seconds = value
