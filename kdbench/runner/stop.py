"""When a run stops before its end: after SIGINT or SIGTERM, or when its time is over."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Stop:
    """Call it to ask whether to save the state and stop. ``signal``: the number of the signal that said so, or None."""

    def __init__(self, max_hours: float | None = None) -> None:
        self.signal: int | None = None
        self._deadline = time.monotonic() + max_hours * 3600 if max_hours is not None else float("inf")

    @property
    def out_of_time(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._deadline

    def __call__(self) -> bool:
        """Whether to stop, for either reason."""
        return self.signal is not None or self.out_of_time

    @contextlib.contextmanager
    def listening(self, say: Callable[[str], None]) -> Iterator[Stop]:
        """Note SIGINT and SIGTERM within the block; the second one ends the process. In the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def note(number: int, frame: Any) -> None:
            again, self.signal = self.signal is not None, number
            if again:
                sys.exit(self.exit_code)
            say("stopping after this step; the state is being saved")

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        except SystemExit:
            if self.signal is None:
                raise
            sys.exit(self.exit_code)  # Ray makes code 1 of one that a signal raises within its calls
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal."""
        return 0 if self.signal is None else 128 + self.signal
