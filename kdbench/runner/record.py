"""Results -> files: details, students and curves first, the rows last, and only then the checkpoints go."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.results import store
from kdbench.results.attempts import Attempts
from kdbench.runner.export.facts import describe
from kdbench.runner.inputs import Inputs
from kdbench.runner.paths import Paths
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress
from kdbench.train.job import Result
from kdbench.utils.files import write_atomic
from kdbench.utils.hashing import canonical
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import run_name


def record(
    inputs: Inputs,
    results: Iterable[Result],
    source: Mapping[str, Any],
    attempts: Attempts,
    progress: Progress,
) -> None:
    """Write the results of a cohort: details, students and curves first, the rows last; then its checkpoints go.

    source: the columns that say when, where and with what it was trained. attempts: of the rows' file.
    progress: gets each result in words, and its row.
    Raises KdbenchError for a file that cannot be written; the rows of what is complete are written even then.
    """
    attempts.refresh()
    complete: list[tuple[Result, dict[str, Any]]] = []
    try:
        for result in results:
            _save_files(inputs, result)
            complete.append(
                (result, {**dict.fromkeys(store.COLUMNS), **source, **_row(inputs, result, attempts)})
            )
    finally:
        _append(inputs.workspace.paths, complete)
    for result, row in complete:
        progress.say(_line(row))
        progress.record(result.cell, row, result.curves)


def _save_files(inputs: Inputs, result: Result) -> None:
    """The details and the student of a finished cell."""
    cell, workspace = result.cell, inputs.workspace
    paths, teacher = workspace.paths, inputs.teachers[result.cell.teacher] if result.cell.teacher else None
    if result.row["status"] != Status.OK:
        return
    try:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **result.details)  # type: ignore[arg-type]
        write_atomic(paths.details / f"{cell.id}.npz", buffer.getvalue(), sync=True)
        described = describe(cell, workspace.class_names, teacher)
        save_weights(paths.students / f"{cell.id}.safetensors", result.student, described.header())
    except OSError as error:
        raise KdbenchError(
            f"cannot write {error.filename or paths.details} ({error.strerror}); free or fix it and type the same "
            "command again: what is saved stays"
        ) from error


def _row(inputs: Inputs, result: Result, attempts: Attempts) -> dict[str, Any]:
    cell = result.cell
    return {
        **_identity_columns(cell),
        **_teacher_columns(inputs, cell),
        **result.row,
        "test_in_train": inputs.workspace.test_in_train,
        "run_id": os.urandom(6).hex(),
        "attempt": attempts.rows(cell.id) + 1,
        "code_hash": registry.code_hash(cell.method),
    }


def _append(paths: Paths, complete: Sequence[tuple[Result, Mapping[str, Any]]]) -> None:
    """Add curves and rows to their files; then drop the checkpoints of the cells that are done."""
    curves = [
        {"cell_id": result.cell.id, "run_id": row["run_id"], "epoch": epoch, "term": term, "value": value}
        for result, row in complete
        if row["status"] in DONE
        for epoch, term, value in result.curves
    ]
    if curves:
        store.append(paths.curves, curves, store.CURVE_COLUMNS)
    if complete:
        store.append(paths.rows, [row for _, row in complete])
    for result, row in complete:
        if row["status"] in DONE:
            checkpoint.remove(paths.work, result.cell.id)


def _identity_columns(cell: Cell) -> dict[str, Any]:
    name, version, params = cell.identity()["method"]
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
        "method": name,
        "method_version": version,
        "params": canonical(params),
        "recipe_id": cell.recipe_id,
        "seed": cell.seed,
        "variant": cell.variant,
        "default": not cell.variant,
        "precision": cell.recipe.precision,
        "teacher_cache": cell.teacher_cache,
        **cell.setting,
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
