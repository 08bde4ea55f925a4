"""Where cohorts train: in this process, or in several beside it. Only this room knows which."""

from __future__ import annotations

from collections.abc import Callable

from kdbench.runner.executors.base import Executor
from kdbench.runner.executors.processes import Processes
from kdbench.runner.executors.serial import Serial
from kdbench.train.callbacks import Progress


def open_executor(jobs: int, progress: Progress, stop: Callable[[], bool]) -> Executor:
    """The executor that trains ``jobs`` cohorts at a time; to be used in a ``with`` statement."""
    return Processes(jobs, progress, stop) if jobs > 1 else Serial(progress, stop)
