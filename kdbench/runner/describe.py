"""The plan in words: what `run` would do and how long it would take, by past rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from kdbench import registry
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.plan.selection import Selection
from kdbench.results import store
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.missing import Missing, done_ids, find_missing, records_of
from kdbench.runner.options import RunOptions
from kdbench.runner.teachers import pretrained_path
from kdbench.runner.trial import try_methods
from kdbench.runner.workspace import Say, open_workspace
from kdbench.train.checkpoint import positions
from kdbench.utils.hashing import canonical
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import duration, run_name

LONG_PLAN = 8  # cells; a plan this long says what it will take before it starts


def describe(selection: Selection, options: RunOptions, say: Say) -> str:
    """What `run` would do: cells done, failed and missing, cohorts, and the hours they take by past rows.

    Raises KdbenchError where a method fails on a pair.
    """
    workspace = open_workspace(selection, options, say)
    attempts = store.read(workspace.paths.rows)
    store.check_header(workspace.paths.curves, store.CURVE_COLUMNS)
    inputs = find_inputs(workspace, say)
    cells = inputs.cells()
    records = records_of(attempts, cells)
    missing = find_missing(attempts, cells, options.force).cells
    try_methods(workspace, missing)
    failed = len(set(records["cell_id"]) - done_ids(records))
    diverged = records[records["status"] == Status.DIVERGED]
    final = f" ({len(diverged)} of them diverged)" if len(diverged) else ""
    lines = [
        f"suite {workspace.suite.name}, split {selection.split}, device {', '.join(workspace.devices)}: "
        f"{len(cells)} cells = {len(cells) - len(missing)} done{final} + "
        f"{len(missing)} missing ({failed} of them failed or were interrupted)"
    ]
    lines += [*_diverged_lines(diverged), *_code_lines(cells, records), *_sweep_lines(selection, cells)]
    lines += [*_teacher_lines(inputs), *_other_teacher_lines(missing, attempts)]
    reached = positions(workspace.paths.work, missing)
    for number, cohort in enumerate(form_cohorts(missing, reached, len(workspace.devices)), 1):
        teacher = next((cell.teacher for cell in cohort if cell.teacher), "no teacher")
        members = ", ".join(f"{cell} ({cell.student})" for cell in cohort)
        epoch, _ = reached.get(cohort[0].id, (0, 0))
        goes_on = f", continuing after epoch {epoch} of {cohort[0].recipe.epochs}" if epoch else ""
        lines.append(f"cohort {number}: seed {cohort[0].seed}, {teacher}: {members}{goes_on}")
    lines.append(estimate(attempts, missing))
    return "\n".join(lines)


def _teacher_lines(inputs: Inputs) -> Iterator[str]:
    """For every teacher that the selection needs: which one it is, or how it is obtained."""
    for name in inputs.workspace.selection.teachers():
        teacher = inputs.teachers.get(name)
        if teacher is not None:
            yield f"teacher {name}: {teacher.id}, {teacher.path}"
        else:
            way = "fetch from timm" if pretrained_path(inputs.workspace, name) else "train"
            yield f"teacher {name}: to {way} first"


def _diverged_lines(diverged: pd.DataFrame) -> Iterator[str]:
    """The cells that count as done and have no result, and what can be done about them."""
    for row in diverged.fillna({"teacher": "", "variant": ""}).to_dict("records"):
        name = run_name(
            f"{row['method']} {row['variant']}".strip(), row["teacher"], row["student"], row["seed"]
        )
        yield f"diverged: {name}: {row['error']}"
    if len(diverged):
        yield "a lower lr or weight of the method's terms may help; --force trains the same cells again"


def _code_lines(cells: Sequence[Cell], records: pd.DataFrame) -> Iterator[str]:
    """Which methods' code is not that of their rows, and what to do."""
    for name in dict.fromkeys(cell.method for cell in cells):
        code, origin = registry.code_hash(name), registry.entry(name).origin
        if not code:
            yield f"the source of {name} cannot be read: its rows carry no code_hash, and an edit goes unnoticed"
        elif not origin.is_file():
            yield f"the code_hash of {name} is of its class alone: an edit of what it calls goes unnoticed"
        hashes = records.loc[(records["method"] == name) & (records["status"] == Status.OK), "code_hash"]
        if code and (hashes != code).any():
            place = origin if origin.is_file() else "its class"
            yield (
                f"WARNING: the code of {name} changed since its rows were written; if it gives other numbers, write "
                f"version = {registry.get(name).version + 1} in {place} and run again"
            )


def _sweep_lines(selection: Selection, cells: Sequence[Cell]) -> Iterator[str]:
    """Parameters that have several values on the test split, which must not choose among them.

    One setting of a params file beside the default is no such choice: its values were chosen before.
    """
    values: dict[str, dict[tuple, set[str]]] = {}
    labels = {setting.label for setting in selection.settings}
    for cell in cells if selection.split == "test" else ():
        for name, value in cell.params.items():
            pairs = values.setdefault(f"{cell.method}.{name}", {})
            place = cell.teacher, cell.student, cell.variant in labels
            pairs.setdefault(place, set()).add(canonical(value))
    several = [name for name, pairs in values.items() if max(map(len, pairs.values())) > 1]
    if several:
        yield (
            f"WARNING: several values of {', '.join(several)} on the TEST split: the best of them would be a choice "
            "that the test images made; choose values with --split holdout"
        )


def announce_missing(
    missing: Missing, selection: Selection, cells: Sequence[Cell], attempts: pd.DataFrame, say: Say
) -> None:
    """Before training: which methods' code is not that of their rows, sweeps, and how long a long plan takes."""
    lines = [*_code_lines(cells, records_of(attempts, cells)), *_sweep_lines(selection, cells)]
    for line in (*lines, *_other_teacher_lines(missing.cells, attempts)):
        say(line)
    if len(missing.cells) >= LONG_PLAN:
        say(f"{len(missing.cells)} cells to train; {estimate(attempts, missing.cells)}")


def _other_teacher_lines(missing: Sequence[Cell], attempts: pd.DataFrame) -> Iterator[str]:
    """Warn where the finished rows are all of another teacher of the same name than the one here."""
    done = attempts[attempts["status"].isin(DONE)]
    for name in dict.fromkeys(cell.teacher for cell in missing if cell.teacher):
        mine = [cell for cell in missing if cell.teacher == name]
        alike = done[(done["teacher"] == name) & done["split_id"].isin({cell.split_id for cell in mine})]
        known = set(alike["teacher_id"])
        if known and known.isdisjoint(cell.teacher_id for cell in mine):
            yield (
                f"WARNING: the finished rows with teacher {name} are of other weights ({', '.join(sorted(known))}) "
                f"than those here ({mine[0].teacher_id or 'to be trained'}); their cells train again, and tables keep "
                "the two apart. To go on with these rows bring the teacher's file: `kdbench teachers import`"
            )


def estimate(rows: pd.DataFrame, missing: Sequence[Cell]) -> str:
    """Time for ``missing`` from the seconds per epoch of earlier runs: same method and student, else same student."""
    past = rows[rows["status"] == Status.OK]
    seconds = (past["train_s"] + past["eval_s"]) / past["epochs_done"]
    by_method = seconds.groupby([past["student"], past["method"]]).median().to_dict()
    by_student = seconds.groupby(past["student"]).median().to_dict()
    known, unknown_cells = 0.0, 0
    for cell in missing:
        epoch = by_method.get((cell.student, cell.method), by_student.get(cell.student))
        if epoch is None:
            unknown_cells += 1
        else:
            known += float(epoch) * cell.recipe.epochs
    if missing and unknown_cells == len(missing):
        return "no earlier runs to estimate the time from (`kdbench run --dry-run --time-steps` times some steps)"
    more = f", without {unknown_cells} cells of which there are no earlier runs" if unknown_cells else ""
    return f"about {duration(known)} of the students' own training, by earlier runs here{more}"
