"""A cohort as one unit of work: what goes in, what comes out, and what is told meanwhile. Plain, picklable data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdbench import checkpoint, data, registry
from kdbench.data.sets import Dataset, Split
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
    teacher_cache: Path | None = None  # for cells that say so
    graphs: bool = False  # record steps as CUDA graphs


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


def load_data(spec: DataSpec, data_dir: Path | None) -> tuple[Dataset, DataSpec]:
    """A suite's data set, limited as it says, and the spec with everything measured that it leaves open.

    Raises KdbenchError for data that is not there, damaged, or not what the spec says.
    """
    if spec.stream:
        return _listed(spec, data_dir)
    if spec.folder:
        dataset = data.load_folder(spec.name, Path(spec.folder), spec.classes, spec.size)
    elif spec.npz:
        dataset = data.load_npz(spec.name, Path(spec.npz), spec.classes)
    else:
        dataset = data.load(spec.name, data_dir, spec.classes)
    height, width = dataset.train.images.shape[1:3]
    if height != width or spec.size not in (0, height):
        wanted = f"the suite says size = {spec.size}" if spec.size else "they must be square"
        raise KdbenchError(
            f"the images of {spec.name} are {height}x{width} pixels, {wanted}; correct one (dataset = "
            "{ folder = ..., size = ... } brings image files to that size)"
        )
    dataset = data.limit(dataset, spec.train_per_class, spec.test_per_class)
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else data.mean_std(dataset.train.images)
    if not min(std):
        raise KdbenchError(
            f"a colour channel is the same in all training images of {spec.name}; give its mean and std"
        )
    measured = dataclasses.replace(
        spec, classes=dataset.num_classes, size=height, mean=spec.mean or mean, std=spec.std or std
    )
    return dataset, measured


def _listed(spec: DataSpec, data_dir: Path | None) -> tuple[Dataset, DataSpec]:
    """The same of images that stream."""
    folder = Path(spec.folder) if spec.folder else data.image_folder(spec.name, data_dir)
    limits = (spec.train_per_class, spec.test_per_class)
    dataset = data.list_images(spec.name, folder, spec.size, spec.eval_resize, limits, spec.workers)
    if spec.classes not in (0, dataset.num_classes):
        raise KdbenchError(
            f"{folder} has {dataset.num_classes} classes but {spec.name} must have {spec.classes}; is this another "
            "data set?"
        )
    return dataset, dataclasses.replace(spec, classes=dataset.num_classes)


def load_split(spec: DataSpec, split: str, data_dir: Path | None) -> Split:
    """The images of one split of a suite's data set, in canonical order."""
    return data.split(load_data(spec, data_dir)[0], split, spec.holdout)


def resumable(work: Path, cell: Cell) -> dict[str, Any] | None:
    """The cell's checkpoint, unless there is none or the method's code changed since."""
    state = checkpoint.load(checkpoint.path_of(work, cell.id))
    expected = (cell.id, registry.code_hash(cell.method))
    fits = isinstance(state, dict) and (state.get("cell_id"), state.get("code")) == expected
    return state if fits else None
