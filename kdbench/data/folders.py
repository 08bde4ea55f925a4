"""Image files in class folders: {train,test|val}/<class>/*.png, *.jpg or *.jpeg. Listed here, read by `decode`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kdbench.errors import KdbenchError

SUFFIXES = {".png", ".jpg", ".jpeg"}  # in any case

Files = list[tuple[str, int]]  # path, label; texts, for a Path a file costs seconds in large sets


class Listing(NamedTuple):
    """The image files below ``root`` with their labels, and the classes' names."""

    root: Path
    train: Files
    test: Files
    class_names: tuple[str, ...]


def list_folders(root: Path) -> Listing:
    """``root``/train and ``root``/test (or, without one, val); the folders' names are the classes.

    Labels follow the names' alphabetical order (numerical, if all are numbers); files of other kinds are passed
    over. Raises KdbenchError that names the folder which is wrong.
    """
    test = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if test is None:
        raise KdbenchError(
            f"{root} has a train folder but neither test nor val; put <class>/*.png into {root}/test"
        )
    names = class_folders(root / "train")
    strangers = sorted(set(class_folders(test)) - set(names))
    if strangers:
        raise KdbenchError(
            f"{test / strangers[0]} has no counterpart in {root / 'train'}; rename or remove it"
        )
    train = [root / "train" / name for name in names]
    return Listing(root, labelled(train), _some(test, (test / name for name in names)), tuple(names))


def class_folders(folder: Path) -> list[str]:
    """The names of the classes, in the order of their labels."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not names:
        raise KdbenchError(f"{folder} holds no images; put <class>/*.png, *.jpg or *.jpeg there")
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def labelled(folders: Iterable[Path]) -> Files:
    """The images of each class's folder; raises KdbenchError for one without any."""
    files: Files = []
    for label, folder in enumerate(folders):
        found = images(folder)
        if not found:
            raise KdbenchError(
                f"{folder} holds no image; put *.png, *.jpg or *.jpeg there or remove the folder"
            )
        files += [(file, label) for file in found]
    return files


def images(folder: Path) -> list[str]:
    """The paths of the image files right in a folder, by name."""
    if not folder.is_dir():
        return []
    names = sorted(os.listdir(folder))
    return [
        f"{folder}/{name}"
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
    ]


def _some(part: Path, folders: Iterable[Path]) -> Files:
    files = [(file, label) for label, folder in enumerate(folders) for file in images(folder)]
    if not files:
        raise KdbenchError(f"{part} holds no images; put <class>/*.png, *.jpg or *.jpeg there")
    return files
