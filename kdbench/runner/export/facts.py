"""What a student's file says of itself: how it is built, what it is fed, what its outputs mean, where it comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors

from kdbench import registry, suites
from kdbench.errors import KdbenchError, first_line
from kdbench.models.naming import FOLDER
from kdbench.plan.cells import Cell
from kdbench.suites import DataSpec, ModelSpec
from kdbench.teachers.weights import Teacher

ROW = (
    "cell_id suite dataset split method variant params teacher teacher_id teacher_top1 student seed epochs_done "
    "precision top1 top5 nll ece student_params macs kdbench git_commit torch device started_utc"
).split()  # columns of a row that an export repeats


@dataclass(frozen=True)
class Description:
    """A student as plain data, each field as JSON in the header of its file.

    size: pixels per side. mean, std: of images in 0..1. whole: whether this network is all that its method deploys.
    resize: the shorter side of an image and then its centre crop, in pixels. class_names: in the order of the outputs;
    None where they are not known. weights: source and license of the pretrained weights that it started from, and
    teacher_weights of those that its teacher started from; None where there are none.
    """

    arch: str
    args: Mapping[str, Any]
    num_classes: int
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    resize: Mapping[str, Any]
    whole: bool = True
    class_names: Sequence[str] | None = None
    weights: Mapping[str, str] | None = None
    teacher_weights: Mapping[str, str] | None = None

    def header(self) -> dict[str, str]:
        """The fields that are known, as JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: json.dumps(value) for key, value in fields.items() if value is not None}


def describe(cell: Cell, class_names: Sequence[str], teacher: Teacher | None) -> Description:
    """The student of a cell, on data of these classes."""
    whole = not registry.get(cell.method).keeps_modules
    described = _describe(cell.student_model, cell.dataset, whole)
    origin = _origin(teacher.model) if teacher else None
    return dataclasses.replace(described, class_names=list(class_names), teacher_weights=origin)


def _describe(model: ModelSpec, data: DataSpec, whole: bool = True) -> Description:
    mean, std = model.normalisation(data)
    return Description(
        arch=model.arch,
        args=dict(model.args),
        num_classes=data.classes,
        size=data.size,
        mean=list(mean),
        std=list(std),
        whole=whole,
        resize=_resizing(data.eval_resize or data.size, data.size),
        weights=_origin(model),
    )


def _resizing(shorter_side: int, crop: int) -> dict[str, Any]:
    return {"shorter_side": shorter_side, "crop": crop, "interpolation": "bicubic"}


def _origin(model: ModelSpec) -> dict[str, str] | None:
    """Of a local folder the name alone: its path says nothing elsewhere."""
    weights = model.weights
    if weights is None:
        return None
    local = weights.source.startswith(FOLDER)
    source = f"{FOLDER}{Path(weights.source).name}" if local else weights.source
    return {"source": source, "license": weights.license}


def read_description(file: Path, row: Mapping[str, Any]) -> Description:
    """What a student's file says of itself; of one that says nothing, what the shipped suite of its row says."""
    try:
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata()
    except safetensors.SafetensorError as error:
        raise KdbenchError(
            f"{file} is damaged ({first_line(error)}); train the cell again with the same command and --force"
        ) from error
    if header:
        known = {key: json.loads(value) for key, value in header.items()}
        return Description(**{"resize": _resizing(known["size"], known["size"]), **known})
    suite = suites.load(str(row["suite"]))
    return _describe(suite.model(str(row["student"])), suite.dataset)


def trained(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of the training, as JSON: the columns `ROW`, the recipe and the views."""
    columns = {key: value for key in ROW if not pd.isna(value := row[key])}
    facts = json.loads(row["facts"]) if isinstance(row["facts"], str) and row["facts"] else {}
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in columns.items()}
    return {**plain, **{key: facts[key] for key in ("recipe", "views") if key in facts}}
