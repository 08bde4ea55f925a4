"""A data set in one npz file, with the keys that Keras uses."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from kdbench.data.validation import Arrays
from kdbench.errors import KdbenchError

KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: Path) -> Arrays:
    """Read ``KEYS`` and, where it is there, ``class_names`` (strings); pickled objects are refused."""
    try:
        if not zipfile.is_zipfile(path):
            raise KdbenchError(
                f"{path} is not an npz file or is cut short; copy it again or save it with np.savez"
            )
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise KdbenchError(
                    f"{path} lacks {', '.join(missing)} (it has {', '.join(file) or 'nothing'}); "
                    f"save it with np.savez under the keys {', '.join(KEYS)}"
                )
            x_train, y_train, x_test, y_test = (_member(file, key, path) for key in KEYS)
            names = _member(file, "class_names", path) if "class_names" in file else None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise KdbenchError(
            f"{path} cannot be read ({error}); copy it again or save it with np.savez"
        ) from error
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise KdbenchError(f"{path}: class_names must be a list of strings; save np.array([...], dtype=str)")
    return Arrays(x_train, y_train, x_test, y_test, None if names is None else tuple(names.tolist()))


def _member(file: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = file[key]
        if not isinstance(array, np.ndarray):
            raise ValueError("it has no npy header")
        return array
    except ValueError as error:
        raise KdbenchError(
            f"{path}: {key} is not a plain array ({error}); nothing is unpickled here, so save numbers, "
            "or strings for class_names, with np.savez"
        ) from error
