"""`kdbench results upgrade`: rewrite a results file of an older schema as today's, with a backup; numbers stay.

An older row does not say its setting. Where today's suite makes a cell of the row's very id, the setting is that cell's
and is filled in; where it does not (the suite was edited since), the setting stays unknown.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.results import lines, store
from kdbench.suites import Suite, replace_recipe
from kdbench.utils.files import write_atomic

Row = dict[str, str]


def upgrade(file: Path, suite: str | None = None, plugins: Path | None = None) -> str:
    """Rewrite ``file`` with today's columns; return what was done, in a sentence.

    ``suite``: name or .toml file of the suite that the rows are of (default: the name that each row carries).
    A file of today's schema whose columns are in another order or lack, or whose line ends are not Unix's, is rewritten
    too. The old file is saved beside it as ``<file>.schema<n>``. Raises KdbenchError for a damaged file.
    """
    registry.load(plugins)
    store.load(file)  # refuses what is damaged, and a newer schema
    try:
        with open(file, "rb+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            return _rewrite(file, held.read(), suite)
    except OSError as error:
        raise KdbenchError(
            f"cannot write {error.filename or file} ({error.strerror}); free or fix it"
        ) from error


def _rewrite(file: Path, content: bytes, suite: str | None) -> str:
    old = lines.read(file, content, store.COLUMNS)
    schema = store.schema_of(file, old)
    if schema == store.SCHEMA and old.header in ([], store.COLUMNS) and lines.is_plain(content):
        return f"{file} has schema {schema} already"
    rows = [dict(zip(old.header, row, strict=True)) for row in old.rows]
    known = {name: _suite(suite or name) for name in {row["suite"] for row in rows}}
    upgraded = rows if schema == store.SCHEMA else [_upgraded(row, known[row["suite"]]) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, store.COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(upgraded)
    backup = _free(file.with_name(f"{file.name}.schema{schema}"))
    write_atomic(backup, content)
    write_atomic(file.resolve(), text.getvalue().encode())
    settings = sum(bool(row.get("setting")) for row in upgraded)
    return (
        f"{file}: {len(rows)} rows upgraded from schema {schema} to {store.SCHEMA}, the setting of {settings} of them "
        f"is known; the old file is {backup}"
    )


def _free(path: Path) -> Path:
    """``path``, or with the first number behind it that no file has: no backup replaces another one."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if not place.exists())


def _suite(name: str) -> Suite | None:
    try:
        return suites.load(name)
    except KdbenchError:
        return None


def _upgraded(row: Row, suite: Suite | None) -> Row:
    cell = cell_of(row, suite) if suite else None
    setting = cell.setting if cell else {"setting": "", "facts": ""}
    return {**row, "schema": str(store.SCHEMA), **setting}


def cell_of(row: Mapping[str, str], suite: Suite) -> Cell | None:
    """The cell of ``suite`` that the texts of a row describe, None where none has the row's id."""
    epochs = {int(float(row["epochs_done"] or 0)), suite.recipe.epochs} - {0}
    precision = row.get("precision") or suite.recipe.precision
    pairs = [p for p in suite.pairs if p.student == row["student"] and row["teacher"] in ("", p.teacher)]
    values = {key: [value] for key, value in json.loads(row["params"]).items()}
    for pair in pairs:
        for count in sorted(epochs):
            recipe = replace_recipe(suite.recipe, {"epochs": count, "precision": precision}, "the row")
            try:
                selection = Selection(
                    dataclasses.replace(suite, recipe=recipe),
                    [row["method"]],
                    [pair],
                    [int(float(row["seed"]))],
                    {row["method"]: values},
                    split=row["split"],
                )
                ids = {pair.teacher: row["teacher_id"] or None}
                cache = bool(row.get("teacher_cache"))
                (cell,) = plan_cells(selection, row.get("split_id", ""), ids, cache)
            except KdbenchError:  # the method is not here, or has other parameters today
                return None
            if cell.id == row["cell_id"]:
                return cell
    return None
