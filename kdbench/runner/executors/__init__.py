"""Where cohorts train: in this process, or in several beside it. Only this room knows which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from kdbench.runner.executors.base import Executor
from kdbench.runner.executors.processes import Processes
from kdbench.runner.executors.serial import Serial
from kdbench.runner.options import RunOptions
from kdbench.train.callbacks import Progress


def open_executor(
    options: RunOptions, devices: Sequence[str], cohorts: int, progress: Progress, stop: Callable[[], bool]
) -> Executor:
    """The executor that ``options`` name, for ``cohorts`` on ``devices``; to be used in a ``with`` statement."""
    slots = process_devices(devices, options.jobs, cohorts)
    if options.executor == "serial" or (options.executor is None and len(slots) == 1):
        return Serial(progress, stop)
    return Processes(slots, progress, stop)


def process_devices(devices: Sequence[str], jobs: int | str, cohorts: int) -> list[str]:
    """The device of each process that trains ``cohorts``.

    jobs: how many processes; less than devices count as one per device. auto: one per CUDA device, and on a CPU one
    per thread of this process.
    """
    if jobs == "auto":
        jobs = len(devices) if devices[0].startswith("cuda") else torch.get_num_threads()
    count = max(1, min(max(int(jobs), len(devices)), cohorts))
    return list(itertools.islice(itertools.cycle(devices), count))
