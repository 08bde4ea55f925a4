"""Where the images of a data set are looked for: one order for sets in memory, streamed sets and `kdbench suites`."""

from __future__ import annotations

import os
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from kdbench.data.catalog import CATALOG, archive_of
from kdbench.data.folders import TRAIN, part
from kdbench.suites import DataSpec


class Layout(Enum):
    """How images are stored."""

    NPZ = auto()  # one npz file
    PICKLED = auto()  # as CIFAR's archive unpacks
    FOLDERS = auto()  # image files, in class folders or as Tiny-ImageNet's archive unpacks


class Place(NamedTuple):
    """A file or folder that holds a data set, and its layout."""

    path: Path
    layout: Layout


def cache_folder() -> Path:
    """Where downloads and decoded images are stored: KDBENCH_CACHE, else ~/.cache/kdbench."""
    return Path(os.environ.get("KDBENCH_CACHE") or "~/.cache/kdbench").expanduser()


def chosen_folder(data_dir: Path | None) -> Path | None:
    """The data folder that the user chose: ``data_dir``, else the one that KDBENCH_DATA names, else None."""
    chosen = data_dir or os.environ.get("KDBENCH_DATA")
    return Path(chosen).expanduser() if chosen else None


def data_folder(data_dir: Path | None) -> Path:
    """The folder to search: the one that the user chose, else the cache."""
    return chosen_folder(data_dir) or cache_folder()


def find(name: str, folder: Path, stream: bool = False) -> Place | None:
    """The first place in ``folder`` that holds the data set ``name``, None where there is none.

    In order: ``<name>.npz``, the folder that CIFAR's archive unpacks to, image files in the folder that another
    archive unpacks to, in ``<name>/``, in ``folder`` itself. ``stream``: image files only.
    """
    archive = archive_of(name)
    if not stream:
        if (file := folder / f"{name}.npz").is_file():
            return Place(file, Layout.NPZ)
        if archive and archive.pickled and (folder / archive.inside).is_dir():
            return Place(folder / archive.inside, Layout.PICKLED)
    unpacked = [folder / archive.inside] if archive and not archive.pickled else []
    with_images = (path for path in (*unpacked, folder / name, folder) if part(path, TRAIN))
    return next((Place(path, Layout.FOLDERS) for path in with_images), None)


def is_local(spec: DataSpec, data_dir: Path | None) -> bool:
    """Whether a suite's data set can be read without a download. One with a place of its own is taken to be there."""
    known = CATALOG.get(spec.name)
    if spec.folder or spec.npz or (known and known.package):
        return True
    return find(spec.name, data_folder(data_dir), spec.stream) is not None
