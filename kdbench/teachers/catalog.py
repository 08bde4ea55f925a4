"""Which file a teacher's name stands for: the teachers that were brought in, and the last choice among them.

They lie in ``<work>/teachers`` beside those trained here. ``<dataset>.json`` there keeps, for each name, the files in
the order in which they were chosen: the last one of the suite's architecture counts, for every suite of that data set.
Data sets may share a name (two folders called images), so each choice says the content (`Dataset.whole`) it is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.suites import ModelSpec
from kdbench.utils import locks
from kdbench.utils.files import write_atomic

Entry = Mapping[str, Any]  # arch, args, file (its path in the folder), data (lacks in lists of old versions)


def folder(work: Path) -> Path:
    """Where teachers lie."""
    return work / "teachers"


def entries(work: Path, dataset: str) -> dict[str, list[Entry]]:
    """Name -> its files, the last chosen last. Raises KdbenchError for a damaged list."""
    path = _list(work, dataset)
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KdbenchError(
            f"{path} cannot be read ({error}); remove it and import the teachers again: their files stay"
        ) from error


def choose(work: Path, dataset: str, name: str, model: ModelSpec, file: Path, data: str) -> None:
    """From now on ``name`` stands for ``file``, which lies in the folder, on the data set whose content is ``data``.

    Raises KdbenchError for a full disk ...
    """
    place = file.relative_to(folder(work)).as_posix()  # a name like timm/resnet18 lies deeper
    entry = {"arch": model.arch, "args": dict(model.args), "file": place, "data": data}
    try:
        with locks.held(work / "locks", [f"teachers-{dataset}"], wait=True):
            known = entries(work, dataset)
            others = [other for other in known.get(name, []) if {"data": data, **other} != entry]
            known[name] = [*others, entry]
            text = json.dumps(known, indent=1, sort_keys=True) + "\n"
            write_atomic(_list(work, dataset), text.encode())
    except OSError as error:
        raise KdbenchError(f"cannot write {_list(work, dataset)} ({error.strerror})") from error


def fitting(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> list[Entry]:
    """The choices for this network and data, the last one last. Those that do not say their data are among them."""
    return [e for e in _built(work, dataset, name, model) if e.get("data", data) == data]


def chosen(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> Path | None:
    """The file that ``name`` stands for, None where none was brought in. Raises KdbenchError when it is gone."""
    found = fitting(work, dataset, name, model, data)
    if not found:
        return None
    path = folder(work) / found[-1]["file"]
    if not path.is_file():
        raise KdbenchError(
            f"{path} is gone, but {name} stands for it; type `kdbench teachers import FILE`, or take it out of "
            f"{_list(work, dataset)}"
        )
    return path


def remark(work: Path, dataset: str, name: str, model: ModelSpec, data: str) -> str:
    """What to know of the choice: an imported teacher that is of other data, or may be. '' where nothing."""
    every = _built(work, dataset, name, model)
    if not every:
        return ""
    found = fitting(work, dataset, name, model, data)
    file = folder(work) / (found or every)[-1]["file"]
    again = f"`kdbench teachers import {file} --name {name}` with this suite"
    if not found:
        return (
            f"WARNING: the imported teacher {name} is not used: it was imported for other data of the name {dataset}, "
            f"or these images or labels changed since; to use it here too, type {again}"
        )
    if "data" not in found[-1]:
        return f"the teacher {name} was imported before kdbench kept for which data; to say for these, type {again}"
    return ""


def _built(work: Path, dataset: str, name: str, model: ModelSpec) -> list[Entry]:
    """The choices for this network, on whatever data of that name."""
    wanted = (model.arch, dict(model.args))
    return [
        entry for entry in entries(work, dataset).get(name, []) if (entry["arch"], entry["args"]) == wanted
    ]


def _list(work: Path, dataset: str) -> Path:
    return folder(work) / f"{dataset}.json"
