"""Which file a teacher's name stands for: the teachers that were brought in, and the last choice among them.

They lie in ``<work>/teachers`` beside those trained here. ``<dataset>.json`` there keeps, for each name, the files in
the order in which they were chosen: the last one of the suite's architecture counts, for every suite of that data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench import checkpoint, locks
from kdbench.errors import KdbenchError
from kdbench.suites import ModelSpec

Entry = Mapping[str, Any]  # arch, args, file (its path in the folder)


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


def choose(work: Path, dataset: str, name: str, model: ModelSpec, file: Path) -> None:
    """From now on ``name`` stands for ``file``, which lies in the folder. Raises KdbenchError for a full disk ..."""
    place = file.relative_to(folder(work)).as_posix()  # a name like timm/resnet18 lies deeper
    entry = {"arch": model.arch, "args": dict(model.args), "file": place}
    try:
        with locks.held(work / "locks", [f"teachers-{dataset}"], wait=True):
            known = entries(work, dataset)
            known[name] = [other for other in known.get(name, []) if other != entry] + [entry]
            text = json.dumps(known, indent=1, sort_keys=True) + "\n"
            checkpoint.write_atomic(_list(work, dataset), text.encode())
    except OSError as error:
        raise KdbenchError(f"cannot write {_list(work, dataset)} ({error.strerror})") from error


def chosen(work: Path, dataset: str, name: str, model: ModelSpec) -> Path | None:
    """The file that ``name`` stands for, None where none was brought in. Raises KdbenchError when it is gone."""
    fitting = [
        entry
        for entry in entries(work, dataset).get(name, [])
        if (entry["arch"], entry["args"]) == (model.arch, dict(model.args))
    ]
    if not fitting:
        return None
    path = folder(work) / fitting[-1]["file"]
    if not path.is_file():
        raise KdbenchError(
            f"{path} is gone, but {name} stands for it; type `kdbench teachers import FILE`, or take it out of "
            f"{_list(work, dataset)}"
        )
    return path


def _list(work: Path, dataset: str) -> Path:
    return folder(work) / f"{dataset}.json"
