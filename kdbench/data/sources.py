"""Load a data set by name: from scikit-learn, a file or folder of the user, or a downloaded archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torchvision

from kdbench.data.catalog import archive_of, classes_of
from kdbench.data.dataset import Dataset, first, make, share
from kdbench.data.decode_cache import read_listing
from kdbench.data.download import fetch
from kdbench.data.folders import TRAIN, Listing, list_folders, part
from kdbench.data.npz import KEYS, read_npz
from kdbench.data.places import Layout, Place, cache_folder, chosen_folder, find
from kdbench.data.tiny_imagenet import is_tiny_imagenet, list_tiny_imagenet
from kdbench.data.validation import Arrays, dataset
from kdbench.errors import KdbenchError

CIFAR = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
DIGITS_TRAIN_SHARE = 0.5  # scikit-learn's digits come without a split


def load_dataset(name: str, data_dir: Path | None, num_classes: int = 0) -> Dataset:
    """Load the data set ``name``: checked, in canonical order.

    ``digits`` comes from scikit-learn. Any other name is looked for in ``data_dir`` (see `places`); where it is not
    there, CIFAR and Tiny-ImageNet are downloaded to it. ``num_classes`` is what the set must have, 0 where that is
    open. Raises KdbenchError for a folder that is missing or empty, data that is not there, and faults in it.
    """
    num_classes = num_classes or classes_of(name)
    if name == "digits":
        return _digits(num_classes)
    folder = _checked_folder(name, data_dir)
    path, layout = find(name, folder) or _download(name, folder)
    if layout is Layout.NPZ:
        return load_npz(name, path, num_classes)
    if layout is Layout.PICKLED:
        return _torchvision(name, folder, num_classes)
    return load_folder(name, path, num_classes)


def _download(name: str, folder: Path) -> Place:
    """Fetch the archive of ``name`` and unpack it into ``folder``."""
    archive = archive_of(name)
    if archive is None:
        raise KdbenchError(
            f"{_not_found(name, folder)}; put one of them there, or name its folder with --data-dir"
        )
    try:
        fetch(archive, folder)
    except KdbenchError as error:
        raise KdbenchError(
            f"{_not_found(name, folder)}; {error}, or name a folder with --data-dir"
        ) from error
    return Place(folder / archive.inside, Layout.PICKLED if archive.pickled else Layout.FOLDERS)


def load_npz(name: str, path: Path, num_classes: int = 0) -> Dataset:
    """Load the data set in one npz file (see `read_npz`)."""
    if not path.is_file():
        raise KdbenchError(f"there is no file {path} with the data of {name}; fix the suite's dataset")
    return dataset(name, read_npz(path), str(path), num_classes)


def load_folder(name: str, path: Path, num_classes: int = 0, size: int = 0) -> Dataset:
    """Load the data set in a folder of image files, resized to ``size`` pixels per side unless that is 0."""
    listing = list_files(name, path)
    if num_classes and len(listing.class_names) != num_classes:
        raise KdbenchError(
            f"{path} has {len(listing.class_names)} classes but {name} must have {num_classes}; is this another "
            "data set?"
        )
    return read_listing(name, listing, size)


def list_files(name: str, path: Path) -> Listing:
    """List the image files of a folder of either layout, for sets in memory and streamed ones."""
    if part(path, TRAIN) is None:
        raise KdbenchError(
            f"there is no folder {path / 'train'} with the training images of {name}; put <class>/*.png there "
            "or correct the suite's dataset"
        )
    return list_tiny_imagenet(path) if is_tiny_imagenet(path) else list_folders(path)


def _checked_folder(name: str, data_dir: Path | None) -> Path:
    """The folder to search. One that the user chose must exist and must not be empty."""
    folder = chosen_folder(data_dir)
    if folder is None:
        return cache_folder()
    remedy = "fix --data-dir or KDBENCH_DATA"
    if not folder.exists():
        raise KdbenchError(f"the data folder {folder} does not exist; {remedy}")
    if not folder.is_dir():
        raise KdbenchError(f"the data folder {folder} is a file; {remedy} to name the folder that holds it")
    try:
        empty = not any(folder.iterdir())
    except OSError as error:
        raise KdbenchError(
            f"the data folder {folder} cannot be read ({error}); fix its permissions"
        ) from error
    if empty:
        instead = f", or leave it out to download {name} to {cache_folder()}" if archive_of(name) else ""
        raise KdbenchError(
            f"the data folder {folder} is empty; put {name}.npz or class folders there{instead}"
        )
    return folder


def _not_found(name: str, folder: Path) -> str:
    archive = archive_of(name)
    layout = f"{archive.inside}/, " if archive else ""
    return (
        f"no data for {name} in {folder}: looked for {name}.npz (keys {', '.join(KEYS)}), {layout}"
        f"and class folders train/<class>/*.png with test/ or val/, there or in {name}/"
    )


def _torchvision(name: str, folder: Path, num_classes: int) -> Dataset:
    """Load CIFAR as its archive unpacks; torchvision reads it and verifies the files' checksums."""
    path = folder / CIFAR[name].base_folder
    try:
        train, test = (CIFAR[name](folder, train=part) for part in (True, False))
    except (RuntimeError, OSError) as error:
        raise KdbenchError(
            f"{path} is incomplete or does not have the checksums of {name}; remove it to download "
            f"it again, or give the images as {name}.npz or class folders"
        ) from error
    x_train, y_train, x_test, y_test = train.data, np.array(train.targets), test.data, np.array(test.targets)
    return dataset(
        name, Arrays(x_train, y_train, x_test, y_test, tuple(train.classes)), str(path), num_classes
    )


def _digits(num_classes: int) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits: 8 x 8 pixels, grey 0..16, as three equal channels."""
    from sklearn.datasets import load_digits  # slow to import: a second

    bunch = load_digits()
    grey = np.round(bunch.images * 255 / 16).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(c) for c in bunch.target_names)
    everything = dataset("digits", Arrays(images, labels, images, labels, names), "digits", num_classes).train
    training = first(everything.targets, share(everything.targets.bincount(), DIGITS_TRAIN_SHARE))
    return make("digits", everything.keep(training), everything.keep(~training), names)
