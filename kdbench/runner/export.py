"""A finished cell's student as one file that plain timm loads, and the words that say how."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import safetensors
import torch

from kdbench import models, registry, suites
from kdbench.errors import KdbenchError
from kdbench.models.cifar.base import ENTRIES
from kdbench.plan.cells import Cell
from kdbench.results import store
from kdbench.suites import DataSpec, ModelSpec
from kdbench.teachers.weights import fill
from kdbench.utils.files import write_atomic
from kdbench.utils.state_dicts import load_weights, save_weights
from kdbench.utils.status import Status

FORMATS = (".safetensors", ".pth")


def description(cell: Cell) -> dict[str, str]:
    """What a student's file says of itself: how it is built, what it is fed, and whether it is all that is deployed."""
    facts = _facts(cell.student_model, cell.dataset, whole=not registry.get(cell.method).keeps_modules)
    return {key: json.dumps(value) for key, value in facts.items()}


def _facts(model: ModelSpec, data: DataSpec, whole: bool = True) -> dict[str, Any]:
    return {
        "arch": model.arch,
        "args": dict(model.args),
        "num_classes": data.classes,
        "size": data.size,
        "mean": data.mean,
        "std": data.std,
        "whole": whole,
    }


def export(cell: str, file: Path, results: Path) -> str:
    """Write the bare student of the cell whose id begins with ``cell`` to ``file``; returns how it is loaded.

    Raises KdbenchError for an id that is unknown, ambiguous or of an unfinished cell, for a student that is not here,
    for a file that exists or whose suffix is neither .safetensors nor .pth.
    """
    if file.suffix not in FORMATS:
        raise KdbenchError(f"{file} must end in {' or '.join(FORMATS)}")
    if file.exists():
        raise KdbenchError(f"{file} exists; name another file, or remove it first")
    row = _row(cell, results)
    source = results / ".work" / "students" / f"{row['cell_id']}.safetensors"
    if not source.is_file():
        raise KdbenchError(
            f"the student of {row['cell_id']} is not on this machine ({source} is not there); train it again with "
            f"`kdbench run --suite {row['suite']} ... --force`"
        )
    facts, state = _description_of(source, row), load_weights(source)
    fill(models.create(facts["arch"], facts["num_classes"], **facts["args"]), state, row["student"], source)
    try:
        if file.suffix == ".pth":
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_atomic(file, buffer.getvalue())
        else:
            save_weights(file, state, {key: json.dumps(value) for key, value in facts.items()})
    except OSError as error:
        raise KdbenchError(f"cannot write {file} ({error.strerror})") from error
    return _words(row, facts, file)


def _row(cell: str, results: Path) -> dict[str, Any]:
    """The finished record whose id begins with ``cell``."""
    matching = {
        str(row["cell_id"]): row
        for suite in store.suites(results)
        for row in store.records(store.load(store.file_of(results, suite))).to_dict("records")
        if str(row["cell_id"]).startswith(cell)
    }
    if not matching:
        raise KdbenchError(
            f"no cell in {results} has an id that begins with {cell!r}; the ids are in {results}/*.csv"
        )
    if len(matching) > 1:
        shown = ", ".join(sorted(matching)[:5]) + (" ..." if len(matching) > 5 else "")
        raise KdbenchError(f"{cell!r} begins {len(matching)} cell ids ({shown}); give more of it")
    (row,) = matching.values()
    if row["status"] != Status.OK:
        raise KdbenchError(f"the cell {row['cell_id']} has no student: its status is {row['status']}")
    return {str(key): value for key, value in row.items()}


def _description_of(source: Path, row: dict[str, Any]) -> dict[str, Any]:
    """What the student's file says of itself; of one that says nothing, what the shipped suite of its row says."""
    with safetensors.safe_open(source, "pt") as opened:
        metadata = opened.metadata()
    if metadata:
        return {key: json.loads(value) for key, value in metadata.items()}
    suite = suites.load(str(row["suite"]))
    return _facts(suite.model(str(row["student"])), suite.dataset)


def _words(row: dict[str, Any], facts: dict[str, Any], file: Path) -> str:
    arch = models.full_name(facts["arch"])
    args = "".join(f", {key}={value!r}" for key, value in facts["args"].items())
    load = f"load_file({str(file)!r})" if file.suffix == ".safetensors" else f"torch.load({str(file)!r})"
    lines = [
        f"{file}: {row['student']} of {row['cell_id']} ({row['method']}, seed {row['seed']}), "
        f"top-1 {row['top1']:.2f} % on {row['split']}",
        "",
        "import timm, torch",
        *(["import kdbench.models  # registers the network with timm"] if facts["arch"] in ENTRIES else []),
        *(["from safetensors.torch import load_file"] if file.suffix == ".safetensors" else []),
        "",
        f"model = timm.create_model({arch!r}, num_classes={facts['num_classes']}{args}).eval()",
        f"model.load_state_dict({load})",
        f"mean, std = (torch.tensor(v).view(3, 1, 1) for v in ({list(facts['mean'])}, {list(facts['std'])}))",
        f"logits = model((images - mean) / std)  # images [B, 3, {facts['size']}, {facts['size']}] in 0..1",
    ]
    if not facts["whole"]:
        lines.insert(
            1, f"WARNING: {row['method']} deploys more than this network, which alone does not reach that"
        )
    return "\n".join(lines)
