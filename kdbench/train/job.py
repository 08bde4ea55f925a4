"""A cohort as one unit of work: its inputs and its results, as plain, picklable data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdbench.plan.cells import Cell
from kdbench.teachers.weights import Teacher


@dataclass(frozen=True)
class Job:
    """The cells of one cohort and the places of its inputs. ``teacher`` is None when no cell needs one."""

    cells: tuple[Cell, ...]
    teacher: Teacher | None
    data_dir: Path | None
    work: Path  # checkpoints
    device: str
    plugins: Path | None = None
    teacher_cache: Path | None = None  # for cells that say so
    graphs: str = ""  # record steps as CUDA graphs: "branches" or "sequential"
    methods: bytes = b""  # those of a notebook or script (see `registry.packed`)
    save_every: float = 60.0  # seconds between two checkpoints; one is saved at the end and at a stop


@dataclass
class Result:
    """The result of one cell: a row without provenance, curves, and where it finished details and student weights."""

    cell: Cell
    row: dict[str, Any]
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    details: dict[str, np.ndarray] = field(default_factory=dict)
    student: dict[str, Tensor] = field(default_factory=dict)
