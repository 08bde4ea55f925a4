"""Measure seconds of work on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Sum of the seconds that blocks take; on a GPU measured by events, which synchronise only when read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._begin: Any = None
        self._laps: list[tuple[Any, Any]] = []  # begin and end of the blocks that are not summed yet

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Add the seconds of a block, unless it raises."""
        self._begin = self._mark()
        yield
        self._laps.append((self._begin, self._mark()))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a part of the running block out."""
        self._laps.append((self._begin, self._mark()))
        try:
            yield
        finally:
            self._begin = self._mark()

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
        self._seconds += sum(self.laps())
        return self._seconds

    def _mark(self) -> Any:
        """Now: a point in time on a CPU, a recorded event on a GPU."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def laps(self) -> list[float]:
        """Take, out of the sum, the seconds of each block since it was last read; waits for the GPU."""
        laps, self._laps = self._laps, []
        if self._device.type != "cuda":
            return [end - begin for begin, end in laps]
        if laps:
            laps[-1][1].synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in laps]


class StepWatch:
    """Seconds of steps of which only some are timed: the others count as the median of the timed ones beside them.

    ``timed``: how many steps were timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._watch = Stopwatch(device)
        self._seconds = 0.0
        self._timed: list[float] = []
        self._untimed = 0
        self._timed_before = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time the block as one step, unless it raises."""
        with self._watch.running():
            yield

    def skip(self) -> None:
        """Count a step that is not timed."""
        self._untimed += 1

    def add(self, seconds: float) -> None:
        """Add seconds that are no step's."""
        self._seconds += seconds

    def settle(self) -> None:
        """Let the steps from here on not change what those before count; waits for the GPU."""
        self.load(self.seconds, self.timed)

    def load(self, seconds: float, timed: int) -> None:
        """Go on from what `seconds` and `timed` were elsewhere."""
        self._seconds, self._timed_before = seconds, timed
        self._timed, self._untimed = [], 0

    @property
    def timed(self) -> int:
        """How many steps were timed; waits for the GPU."""
        self._read()
        return self._timed_before + len(self._timed)

    @property
    def seconds(self) -> float:
        """The sum so far; waits for the GPU."""
        self._read()
        typical = statistics.median(self._timed) if self._untimed and self._timed else 0.0
        return self._seconds + sum(self._timed) + typical * self._untimed

    def _read(self) -> None:
        self._timed += self._watch.laps()
