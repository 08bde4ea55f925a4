"""Load a suite's data set and its splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kdbench.data.dataset import Dataset, Split, limit_per_class, split_dataset
from kdbench.data.sources import load_dataset, load_folder, load_npz
from kdbench.data.statistics import mean_std
from kdbench.data.streaming import image_folder, list_images
from kdbench.errors import KdbenchError
from kdbench.suites import DataSpec


def load_data(spec: DataSpec, data_dir: Path | None) -> tuple[Dataset, DataSpec]:
    """Load a suite's data set with its limits; also return the spec with everything measured that it leaves open.

    Raises KdbenchError for data that is missing, damaged, or not what the spec says.
    """
    if spec.stream:
        return _load_streamed(spec, data_dir)
    if spec.folder:
        dataset = load_folder(spec.name, Path(spec.folder), spec.classes, spec.size)
    elif spec.npz:
        dataset = load_npz(spec.name, Path(spec.npz), spec.classes)
    else:
        dataset = load_dataset(spec.name, data_dir, spec.classes)
    height, width = dataset.train.images.shape[1:3]
    if height != width or spec.size not in (0, height):
        rule = f"the suite says size = {spec.size}" if spec.size else "they must be square"
        raise KdbenchError(
            f"the images of {spec.name} are {height}x{width} pixels, {rule}; correct one (dataset = "
            "{ folder = ..., size = ... } resizes image files to it)"
        )
    dataset = limit_per_class(dataset, spec.train_per_class, spec.test_per_class)
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else mean_std(dataset.train.images)
    if not min(std):
        raise KdbenchError(
            f"a colour channel is the same in all training images of {spec.name}; give its mean and std"
        )
    measured = dataclasses.replace(
        spec, classes=dataset.num_classes, size=height, mean=spec.mean or mean, std=spec.std or std
    )
    return dataset, measured


def _load_streamed(spec: DataSpec, data_dir: Path | None) -> tuple[Dataset, DataSpec]:
    """`load_data` for a set whose images are streamed: they are listed, and nothing is measured."""
    folder = Path(spec.folder) if spec.folder else image_folder(spec.name, data_dir)
    limits = (spec.train_per_class, spec.test_per_class)
    dataset = list_images(spec.name, folder, spec.size, spec.eval_resize, limits, spec.workers)
    if spec.classes not in (0, dataset.num_classes):
        raise KdbenchError(
            f"{folder} has {dataset.num_classes} classes but {spec.name} must have {spec.classes}; is this another "
            "data set?"
        )
    return dataset, dataclasses.replace(spec, classes=dataset.num_classes)


def load_split(spec: DataSpec, split: str, data_dir: Path | None) -> Split:
    """The images of one split of a suite's data set, in canonical order."""
    return split_dataset(load_data(spec, data_dir)[0], split, spec.holdout)
