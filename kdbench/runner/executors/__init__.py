"""Where cohorts train: in this process, in several beside it, or on a cluster. Only this room knows which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.runner.executors.base import Executor
from kdbench.runner.executors.processes import Processes
from kdbench.runner.executors.serial import Serial
from kdbench.runner.executors.slurm import Slurm
from kdbench.runner.options import RunOptions
from kdbench.runner.paths import Paths
from kdbench.runner.submitted import read_notes
from kdbench.train.callbacks import Progress


def open_executor(
    options: RunOptions,
    devices: Sequence[str],
    cohorts: int,
    paths: Paths,
    progress: Progress,
    stop: Callable[[], bool],
) -> Executor:
    """The executor that ``options`` name, for ``cohorts`` on ``devices``; to be used in a ``with`` statement."""
    if options.executor == "ray":
        from kdbench.runner.executors.ray import Ray  # an extra, as `RunOptions` knows

        return Ray(options, paths.work, progress, stop)
    if options.executor == "slurm":
        return Slurm(paths.slurm, options.slurm_parameters, options.device, progress, stop)
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


def check_not_submitted(options: RunOptions, folder: Path, cells: Iterable[Cell]) -> None:
    """Raise KdbenchError where jobs of a cluster train some of ``cells``, which would be trained a second time.

    Slurm itself takes up jobs all of whose cells are missing.
    """
    missing = {cell.id for cell in cells}
    for note in read_notes(folder):
        shared, others = missing.intersection(note["cells"]), set(note["cells"]) - missing
        if shared and options.executor != "slurm":
            raise KdbenchError(
                f"{len(shared)} of these cells were submitted as job {note['job']}; type the command with --executor "
                f"slurm to collect them, or cancel the job and delete {folder}"
            )
        if shared and others:
            raise KdbenchError(
                f"{len(shared)} of these cells were submitted as job {note['job']}, beside {len(others)} that this "
                "command does not train; type the command that submitted them, or, once the job is over, delete its "
                f"note in {folder} and train these cells again"
            )
