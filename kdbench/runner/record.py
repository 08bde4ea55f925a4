"""One cell's result -> files: details, student and curves first, its row last, and only then its checkpoint goes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.plan.cells import Cell
from kdbench.results import store
from kdbench.results.attempts import Attempts
from kdbench.runner.export import description
from kdbench.runner.inputs import Inputs
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress
from kdbench.train.job import Result
from kdbench.utils.files import write_atomic
from kdbench.utils.hashing import canonical
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import run_name


def record(
    inputs: Inputs, result: Result, source: Mapping[str, Any], attempts: Attempts, progress: Progress
) -> None:
    """Write one result: details, student and curves first, its row last, and only then drop its checkpoint.

    source: the columns that say when, where and with what it was trained. attempts: of the rows' file.
    progress: gets the result in words, and the row.
    Raises KdbenchError for a file that cannot be written.
    """
    cell, paths, status = result.cell, inputs.workspace.paths, result.row["status"]
    method = cell.build_method()
    attempts.refresh()
    row: dict[str, Any] = dict.fromkeys(store.COLUMNS)
    row.update(source)
    row.update(_identity_columns(cell, method), **_teacher_columns(inputs, cell), **result.row)
    row["test_in_train"] = inputs.workspace.test_in_train
    row.update(
        run_id=os.urandom(6).hex(),
        attempt=attempts.rows(cell.id) + 1,
        code_hash=registry.code_hash(cell.method),
    )
    if status == Status.OK:
        try:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **result.details)  # type: ignore[arg-type]
            write_atomic(paths.details / f"{cell.id}.npz", buffer.getvalue())
            student = paths.students / f"{cell.id}.safetensors"
            save_weights(student, result.student, description(cell))
        except OSError as error:
            raise KdbenchError(
                f"cannot write {error.filename or paths.details} ({error.strerror}); free or fix it and type the same "
                "command again: what is saved stays"
            ) from error
    if status in DONE:
        curves = [
            {"cell_id": cell.id, "run_id": row["run_id"], "epoch": epoch, "term": term, "value": value}
            for epoch, term, value in result.curves
        ]
        if curves:
            store.append(paths.curves, curves, store.CURVE_COLUMNS)
    store.append(paths.rows, [row])
    if status != Status.INTERRUPTED:
        checkpoint.remove(paths.work, cell.id)
    progress.say(_line(row))
    progress.record(cell, row, result.curves)


def _identity_columns(cell: Cell, method: Method) -> dict[str, Any]:
    return {
        "schema": store.SCHEMA,
        "cell_id": cell.id,
        "suite": cell.suite,
        "dataset": cell.dataset.shown,
        "split": cell.split,
        "split_id": cell.split_id,
        "teacher": cell.teacher,
        "teacher_id": cell.teacher_id,
        "student": cell.student,
        "method": cell.method,
        "method_version": method.version,
        "params": canonical(method.params),
        "recipe_id": cell.recipe_id,
        "seed": cell.seed,
        "variant": cell.variant,
        "default": not cell.variant,
        "precision": cell.recipe.precision,
        "teacher_cache": cell.teacher_cache,
        **cell.setting(),
    }


def _teacher_columns(inputs: Inputs, cell: Cell) -> dict[str, Any]:
    if cell.teacher is None:
        return {"teacher_top1": None, "teacher_expected": None}
    teacher = inputs.teachers[cell.teacher]
    return {"teacher_top1": inputs.teacher_top1[cell.teacher], "teacher_expected": teacher.expected}


def _line(row: Mapping[str, Any]) -> str:
    """One finished cell, in words."""
    what = " ".join(str(row[k]) for k in ("method", "variant") if row[k])
    if row["status"] == Status.OK:
        text = f"top-1 {row['top1']:.2f} %, {row['train_s']:.0f} s"
    else:
        text = f"{row['status']}: {row['error'] or 'saved, type the same command to go on'}"
    return f"{run_name(what, row['teacher'], row['student'], row['seed'])}: {text}"
