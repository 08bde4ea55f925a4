"""A data set as image files in class folders: {train,test|val}/<class>/*.png, *.jpg or *.jpeg."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from kdbench.data.arrays import Arrays
from kdbench.errors import KdbenchError

SUFFIXES = {".png", ".jpg", ".jpeg"}


def read_folders(root: Path) -> Arrays:
    """Read ``root``/train and ``root``/test (or, without one, val); the folders' names are the classes.

    Labels follow the names' alphabetical order (numerical, if all are numbers). Grey, palette and RGBA images
    become RGB; other files are passed over. Raises KdbenchError that names the folder or file which is wrong.
    """
    test = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if test is None:
        raise KdbenchError(
            f"{root} has a train folder but neither test nor val; put <class>/*.png into {root}/test"
        )
    names = _classes(root / "train")
    strangers = sorted(set(_classes(test)) - set(names))
    if strangers:
        raise KdbenchError(
            f"{test / strangers[0]} has no counterpart in {root / 'train'}; rename or remove it"
        )
    return Arrays(*_part(root / "train", names), *_part(test, names), class_names=tuple(names))


def _classes(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def _part(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 3] and labels [N] of one part."""
    files, labels = [], []
    for label, name in enumerate(names):
        found = _files(folder / name)
        if not found and folder.name == "train":
            raise KdbenchError(
                f"{folder / name} holds no image; put *.png, *.jpg or *.jpeg there or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise KdbenchError(f"{folder} holds no images; put <class>/*.png, *.jpg or *.jpeg there")
    first = _decode(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        image = _decode(file)
        if image.shape != first.shape:
            raise KdbenchError(
                f"{file} is {image.shape[0]} x {image.shape[1]} (height x width) but {files[0]} is "
                f"{first.shape[0]} x {first.shape[1]}; resize all images to one size"
            )
        images[row] = image
    return images, np.array(labels, np.int64)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _decode(file: Path) -> np.ndarray:
    """uint8 [H, W, 3]."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise KdbenchError(f"{file} has more than 8 bits a channel; convert it to an 8-bit image")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise KdbenchError(f"{file} is corrupt, cut short or no image; replace or remove it") from error
