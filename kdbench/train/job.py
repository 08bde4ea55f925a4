"""A cohort as one unit of work: its inputs and its results, as plain, picklable data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdbench.data.dataset import Split
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.teachers.weights import Teacher


@dataclass(frozen=True)
class Job:
    """The cells of one cohort and the places of its inputs. ``teacher`` is None when no cell needs one.

    floors: cell id -> epoch -> top-1 in percent; a cell whose best is below it after that epoch is stopped.
    ranks: processes that train the cohort together, or auto: one per GPU where it trains.
    fills_cache: nothing is trained; what ``teacher_cache`` lacks for the one cell is computed.
    """

    cells: tuple[Cell, ...]
    teacher: Teacher | None
    data_dir: Path | None
    work: Path  # checkpoints
    device: str
    plugins: Path | None = None
    teacher_cache: Path | None = None  # for cells that say so
    graphs: str = ""  # record steps as CUDA graphs: "branches" or "sequential"
    methods: bytes = b""  # those of a notebook or script (see `registry.packed`)
    floors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    fills_cache: bool = False
    save_every: float = 60.0  # seconds between two checkpoints; one is saved at the end and at a stop
    ranks: int | str = 1


@dataclass
class Result:
    """The result of one cell: a row without provenance, curves, and where it finished details and student weights."""

    cell: Cell
    row: dict[str, Any]
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    details: dict[str, np.ndarray] = field(default_factory=dict)
    student: dict[str, Tensor] = field(default_factory=dict)


def load_images(job: Job) -> Split:
    """The images of a job; raises KdbenchError where they are not those that its cells were planned with."""
    cell = job.cells[0]
    split = load_split(cell.dataset, cell.split, job.data_dir)
    if split.id != cell.split_id:
        raise KdbenchError(
            f"the images of {cell.dataset.name} here ({split.id}) are not those that the run was planned with "
            f"({cell.split_id}); copy the same files to where KDBENCH_DATA or --data-dir looks"
        )
    return split
