"""The checks that the arrays of any source must pass to become a data set."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from kdbench.data.dataset import Dataset, ImageSet, make
from kdbench.data.folders import lacking
from kdbench.errors import KdbenchError


class Arrays(NamedTuple):
    """The content of a source before any check: images [N, H, W, 3], labels [N] or [N, 1], names if any."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...] | None


def dataset(name: str, arrays: Arrays, where: str, num_classes: int = 0) -> Dataset:
    """The checked data set in canonical order; ``where`` names the source in errors.

    ``num_classes`` is what the set must have; 0: the number of class names, or of distinct labels.
    Raises KdbenchError for a wrong shape or dtype, parts that do not match, labels out of range, a class that
    has no training image.
    """
    parts = {}
    for part, images, labels in (
        ("train", arrays.x_train, arrays.y_train),
        ("test", arrays.x_test, arrays.y_test),
    ):
        parts[part] = (_images(images, f"{where}: x_{part}"), _labels(labels, f"{where}: y_{part}"))
        if len(parts[part][0]) != len(parts[part][1]):
            raise KdbenchError(
                f"{where}: x_{part} has {len(parts[part][0])} images but y_{part} "
                f"{len(parts[part][1])} labels; each image needs one label in the same row"
            )
    if arrays.x_train.shape[1:] != arrays.x_test.shape[1:]:
        raise KdbenchError(
            f"{where}: x_train has images of {_size(arrays.x_train)} but x_test of {_size(arrays.x_test)} "
            "(height x width); resize them to one size"
        )
    names = _names(name, arrays, where, num_classes)
    for part, (_, labels) in parts.items():
        _in_range(labels, len(names), f"{where}: y_{part}", name)
    present = np.unique(parts["train"][1])
    if len(present) < len(names):
        missing = next(c for c in range(len(names)) if c >= len(present) or present[c] != c)
        raise KdbenchError(
            f"{where}: class {missing} ({names[missing]}) has no training image ({len(present)} of "
            f"{len(names)} classes have); complete the set of {name} or renumber its labels from 0"
        )
    train, test = (
        ImageSet(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in parts.values()
    )
    notes = (*_dark(parts, where), *lacking(f"{where}: x_test", names, test.targets.tolist()))
    return replace(make(name, train, test, names), notes=notes)


DARK = "no pixel of"  # in such a warning


def _dark(parts: Mapping[str, tuple[np.ndarray, np.ndarray]], where: str) -> list[str]:
    """A warning for pixels that were in 0..1 when they became whole numbers."""
    return [
        f"WARNING: {where}: {DARK} x_{part} is above 1 (of 255); if they were in 0..1, multiply by 255 before "
        ".astype('uint8')"
        for part, (images, _) in parts.items()
        if images.max() <= 1
    ]


def _images(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8:
        scale = (
            "multiply by 255 if they are in 0..1, round, "
            if images.dtype.kind == "f"
            else "scale them to 0..255 "
        )
        raise KdbenchError(
            f"{where} has dtype {images.dtype}, but pixels must be uint8 in 0..255; {scale}and save with "
            ".astype('uint8')"
        )
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        remedy = "save images as [count, height, width, 3]"
        if images.ndim == 3:
            remedy = "repeat the grey channel: np.repeat(x[..., None], 3, axis=3)"
        elif images.ndim == 4 and images.shape[1] == 3:
            remedy = "move the channels to the end: x.transpose(0, 2, 3, 1)"
        raise KdbenchError(
            f"{where} has shape {list(images.shape)} instead of [count, height, width, 3]; {remedy}"
        )
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise KdbenchError(
            f"{where} has shape {list(labels.shape)} and dtype {labels.dtype}, but labels must be whole "
            "numbers of shape [count] or [count, 1]; save class numbers from 0 (one-hot rows: y.argmax(1))"
        )
    return labels.astype(np.int64)


def _names(name: str, arrays: Arrays, where: str, num_classes: int) -> tuple[str, ...]:
    names = arrays.class_names
    if names is None:
        return tuple(str(c) for c in range(num_classes or len(np.unique(arrays.y_train))))
    if num_classes and len(names) != num_classes:
        raise KdbenchError(
            f"{where} has {len(names)} classes but {name} must have {num_classes}; is this another data set?"
        )
    return names


def _in_range(labels: np.ndarray, count: int, where: str, name: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise KdbenchError(
            f"{where}[{wrong[0]}] is {labels[wrong[0]]}, but {name} has {count} classes and its "
            f"labels must be in 0..{count - 1} ({len(wrong)} of {len(labels)} are not); renumber them from 0"
        )


def _size(images: np.ndarray) -> str:
    return f"{images.shape[1]} x {images.shape[2]}"
