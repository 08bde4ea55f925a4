"""A cohort as one unit of work: what goes in, what comes out, and what is told meanwhile. Plain, picklable data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdbench import checkpoint, data, registry
from kdbench.data.sets import Split
from kdbench.errors import KdbenchError
from kdbench.plan import Cell
from kdbench.suites import DataSpec
from kdbench.teachers import Teacher


@dataclass(frozen=True)
class Job:
    """The cells of one cohort and where its inputs lie. ``teacher`` is None when no cell needs one."""

    cells: tuple[Cell, ...]
    teacher: Teacher | None
    data_dir: Path | None
    work: Path  # checkpoints
    device: str
    plugins: Path | None = None


@dataclass
class Result:
    """What one cell came to: a row without provenance, its curves, and (status ok) details and student weights."""

    cell: Cell
    row: dict[str, Any]
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    details: dict[str, np.ndarray] = field(default_factory=dict)
    student: dict[str, Tensor] = field(default_factory=dict)


class Progress:
    """What the loop tells while it runs; this one says nothing."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None:
        """A cohort starts (or goes on) after ``done`` of ``epochs`` x ``steps`` steps."""

    def step(self, images: int) -> None:
        """One batch is done."""

    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None:
        """Epoch ``epoch`` (from 1) is done; ``accuracy`` by method, in percent."""

    def warn(self, text: str) -> None:
        """Something the user should know."""

    def end(self) -> None:
        """The cohort is over."""


def load_split(spec: DataSpec, split: str, data_dir: Path | None) -> Split:
    """The images of one split of a suite's data set, in canonical order."""
    dataset = data.load(spec.name, data_dir, spec.classes)
    height, width = dataset.train.images.shape[1:3]
    if (height, width) != (spec.size, spec.size):
        raise KdbenchError(
            f"the images of {spec.name} are {height}x{width} pixels, the suite says size = {spec.size}; correct one"
        )
    return data.split(data.limit(dataset, spec.train_per_class, spec.test_per_class), split, spec.holdout)


def resumable(work: Path, cell: Cell) -> dict[str, Any] | None:
    """The cell's checkpoint, unless there is none or the method's code changed since."""
    state = checkpoint.load(checkpoint.path_of(work, cell.id))
    expected = (cell.id, registry.code_hash(cell.method))
    fits = isinstance(state, dict) and (state.get("cell_id"), state.get("code")) == expected
    return state if fits else None
