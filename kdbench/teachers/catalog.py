"""Catalog of imported teachers: which weights file a teacher's name stands for.

The files are in ``<work>/teachers``, as are those of teachers trained here. ``<dataset>.json`` in the same folder maps
each name to its imports, the latest last. The latest import of the suite's architecture is used, by every suite of
that data set. Different data sets may have the same name (two folders called images), so each import also records the
hash of the data (`Dataset.whole`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.suites import ModelSpec
from kdbench.utils import locks
from kdbench.utils.files import write_atomic

Entry = Mapping[str, Any]  # arch, args, file (relative to the folder), data (absent in lists of old versions)


def folder(work: Path) -> Path:
    """Return the folder of all teachers' weights."""
    return work / "teachers"


def entries(work: Path, dataset: str) -> dict[str, list[Entry]]:
    """Read the imports of each name, the latest last. Raises KdbenchError for a damaged list."""
    path = _list_path(work, dataset)
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KdbenchError(
            f"{path} cannot be read ({error}); remove it and import the teachers again: their files stay"
        ) from error


def assign(work: Path, dataset: str, name: str, model: ModelSpec, file: Path, data: str) -> None:
    """Make ``file``, which is in the folder, the teacher ``name`` for the data set with the hash ``data``.

    Raises KdbenchError if the list cannot be written.
    """
    relative = file.relative_to(folder(work)).as_posix()  # a name like timm/resnet18 has a subfolder
    entry = {"arch": model.arch, "args": dict(model.args), "file": relative, "data": data}
    with _edited(work, dataset) as imports:
        others = [other for other in imports.get(name, []) if {"data": data, **other} != entry]
        imports[name] = [*others, entry]


def withdraw(work: Path, dataset: str, name: str, entry: Entry) -> None:
    """Take an import out of the list; its file stays. Raises KdbenchError if the list cannot be written."""
    with _edited(work, dataset) as imports:
        imports[name] = [other for other in imports.get(name, []) if other != entry]


@contextlib.contextmanager
def _edited(work: Path, dataset: str) -> Iterator[dict[str, list[Entry]]]:
    """The list, to be changed within the block by this process alone, and then written."""
    try:
        with locks.held(work / "locks", [f"teachers-{_word(dataset)}"], wait=True):
            imports = entries(work, dataset)
            yield imports
            text = json.dumps(imports, indent=1, sort_keys=True) + "\n"
            write_atomic(_list_path(work, dataset), text.encode())
    except OSError as error:
        raise KdbenchError(f"cannot write {_list_path(work, dataset)} ({error.strerror})") from error


def matching_entries(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> list[Entry]:
    """Return the imports for this network and data, the latest last, with those that do not record their data."""
    return [e for e in _entries_of_network(work, dataset, name, model) if e.get("data", data) == data]


def assigned_file(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> Path | None:
    """Return the file of the teacher ``name``; None if none was imported. Raises KdbenchError if it is gone."""
    matching = matching_entries(work, dataset, name, model, data)
    if not matching:
        return None
    path = folder(work) / matching[-1]["file"]
    if not path.is_file():
        raise KdbenchError(
            f"{path} is gone, but {name} stands for it; type `kdbench teachers import FILE`, or `kdbench teachers "
            f"remove {name}` (with the same --suite)"
        )
    return path


def data_remark(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> str:
    """Explain that the imported teacher was, or may have been, imported for other data; '' if it was not."""
    imports = _entries_of_network(work, dataset, name, model)
    if not imports:
        return ""
    matching = matching_entries(work, dataset, name, model, data)
    file = folder(work) / (matching or imports)[-1]["file"]
    command = f"`kdbench teachers import {file} --name {name}` with this suite"
    if not matching:
        return (
            f"WARNING: the imported teacher {name} is not used: it was imported for other data of the name {dataset}, "
            f"or these images or labels changed since; to use it here too, type {command}"
        )
    if "data" not in matching[-1]:
        return f"the teacher {name} was imported before kdbench recorded for which data; to record it, type {command}"
    return ""


def _entries_of_network(work: Path, dataset: str, name: str, model: ModelSpec) -> list[Entry]:
    """Return the imports for this network, on any data set of that name."""
    network = (model.arch, dict(model.args))
    return [
        entry for entry in entries(work, dataset).get(name, []) if (entry["arch"], entry["args"]) == network
    ]


def _list_path(work: Path, dataset: str) -> Path:
    return folder(work) / f"{_word(dataset)}.json"


def _word(dataset: str) -> str:
    """The name of a data set as that of a file."""
    return dataset.replace("/", "_")
