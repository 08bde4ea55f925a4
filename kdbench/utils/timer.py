"""Measure seconds of work on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Sum of the seconds that blocks take; on a GPU measured by events, which synchronise only when read."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._seconds = 0.0
        self._pending: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Add the seconds of a block."""
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
        """Yield the items and add the seconds that the iterator spends on each of them."""
        iterator = iter(items)
        while True:
            with self.running():
                item = next(iterator, None)
            if item is None:
                return
            yield item

    @property
    def seconds(self) -> float:
        """The sum so far; waits for the GPU."""
        if self._pending:
            self._pending[-1][1].synchronize()
            self._seconds += sum(begin.elapsed_time(end) for begin, end in self._pending) / 1000
            self._pending.clear()
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._seconds = value
