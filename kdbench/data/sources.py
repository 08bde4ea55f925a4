"""Where images come from: scikit-learn, a file or folder of the user's, or torchvision's download."""

import contextlib
import http.client
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import torchvision

from kdbench.data.arrays import Arrays, dataset
from kdbench.data.folders import read_folders
from kdbench.data.npz import KEYS, read_npz
from kdbench.data.sets import Dataset, first, make, share
from kdbench.errors import KdbenchError

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}
CIFAR = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
CACHE = Path("~/.cache/kdbench")
DIGITS_TRAIN_SHARE = 0.5  # scikit-learn's digits come without a split


def load(name: str, data_dir: Path | None, num_classes: int | None = None) -> Dataset:
    """The data set ``name``, checked, in canonical order.

    ``digits`` comes from scikit-learn. Any other name is looked for in ``data_dir`` (None: the folder that
    KDBENCH_DATA names, else ~/.cache/kdbench): ``<name>.npz``, torchvision's layout (CIFAR), class folders in
    ``<name>/`` or in the folder itself; then CIFAR is downloaded there. ``num_classes`` is what the set must
    have, where it is known. Raises KdbenchError for a folder that is missing or empty, data that is not
    found, and whatever is wrong in it.
    """
    num_classes = num_classes or CLASSES.get(name)
    if name == "digits":
        return _digits(num_classes)
    folder = _folder(name, data_dir)
    if (path := folder / f"{name}.npz").is_file():
        return dataset(name, read_npz(path), str(path), num_classes)
    if name in CIFAR and (path := folder / CIFAR[name].base_folder).is_dir():
        return dataset(name, _torchvision(name, folder, path), str(path), num_classes)
    for path in (folder / name, folder):
        if (path / "train").is_dir():
            return dataset(name, read_folders(path), str(path), num_classes)
    if name not in CIFAR:
        raise KdbenchError(
            f"{_looked(name, folder)}; put one of them there, or name its folder with --data-dir"
        )
    return dataset(name, _download(name, folder), str(folder), num_classes)


def _folder(name: str, data_dir: Path | None) -> Path:
    """The folder to look in; one that the user named must be there and hold something."""
    named = data_dir or os.environ.get("KDBENCH_DATA")
    if not named:
        return CACHE.expanduser()
    folder = Path(named).expanduser()
    remedy = "mend --data-dir or KDBENCH_DATA"
    if not folder.exists():
        raise KdbenchError(f"the data folder {folder} does not exist; {remedy}")
    if not folder.is_dir():
        raise KdbenchError(f"the data folder {folder} is a file; {remedy} to name the folder that holds it")
    try:
        empty = not any(folder.iterdir())
    except OSError as error:
        raise KdbenchError(
            f"the data folder {folder} cannot be read ({error}); mend its permissions"
        ) from error
    if empty:
        instead = f", or leave it out to download {name} to {CACHE}" if name in CIFAR else ""
        raise KdbenchError(
            f"the data folder {folder} is empty; put {name}.npz or class folders there{instead}"
        )
    return folder


def _looked(name: str, folder: Path) -> str:
    layout = f"{CIFAR[name].base_folder}/ (torchvision's layout), " if name in CIFAR else ""
    return (
        f"no data for {name} in {folder}: looked for {name}.npz (keys {', '.join(KEYS)}), {layout}"
        f"and class folders train/<class>/*.png with test/ or val/, there or in {name}/"
    )


def _torchvision(name: str, folder: Path, path: Path) -> Arrays:
    try:
        return _cifar(name, folder, download=False)
    except (RuntimeError, OSError) as error:
        raise KdbenchError(
            f"{path} is incomplete or does not have the checksums of {name}; remove it to download "
            f"it again, or give the images as {name}.npz or class folders"
        ) from error


def _download(name: str, folder: Path) -> Arrays:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            return _cifar(name, folder, download=True)
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
        raise KdbenchError(
            f"{_looked(name, folder)}; the download failed too ({error}): put one of "
            "them there, name its folder with --data-dir, or mend the network"
        ) from error


def _cifar(name: str, folder: Path, download: bool) -> Arrays:
    train, test = (CIFAR[name](folder, train=part, download=download) for part in (True, False))
    return Arrays(
        train.data,
        np.array(train.targets),
        test.data,
        np.array(test.targets),
        class_names=tuple(train.classes),
    )


def _digits(num_classes: int | None) -> Dataset:
    """scikit-learn's 1,797 handwritten digits: 8 x 8 pixels, grey 0..16, as three equal channels."""
    from sklearn.datasets import load_digits  # here, for it takes a second to import

    bunch = load_digits()
    grey = np.round(bunch.images * 255 / 16).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(c) for c in bunch.target_names)
    everything = dataset("digits", Arrays(images, labels, images, labels, names), "digits", num_classes).train
    training = first(everything.targets, share(everything.targets.bincount(), DIGITS_TRAIN_SHARE))
    return make("digits", everything.keep(training), everything.keep(~training), names)
