"""The plan in words: what `run` would do and how long it would take, by past rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.results import store
from kdbench.runner.session import Session, done_ids, positions, records_of, teacher_lines
from kdbench.utils.status import Status


def describe(session: Session, force: bool = False) -> str:
    """What `run` would do: cells done, failed and missing, cohorts, and the hours they take by past rows."""
    cells = session.cells()
    records = records_of(session, cells)
    done = set() if force else done_ids(records)
    missing = [cell for cell in cells if cell.id not in done]
    cohorts = form_cohorts(missing, positions(session.paths.work, missing))
    failed = len(set(records["cell_id"]) - done_ids(records))
    lines = [
        f"suite {session.suite.name}, split {session.split_name}, device {session.device}: {len(cells)} cells = "
        f"{len(cells) - len(missing)} done + {len(missing)} missing ({failed} of them failed or were interrupted)"
    ]
    lines += teacher_lines(session)
    for number, cohort in enumerate(cohorts, 1):
        teacher = next((cell.teacher for cell in cohort if cell.teacher), "no teacher")
        members = ", ".join(" ".join(filter(None, [c.method, c.variant, f"({c.student})"])) for c in cohort)
        lines.append(f"cohort {number}: seed {cohort[0].seed}, {teacher}: {members}")
    lines.append(estimate(store.read(session.paths.rows), missing))
    return "\n".join(lines)


def estimate(rows: pd.DataFrame, missing: Sequence[Cell]) -> str:
    """Hours for ``missing`` from the seconds an epoch of past rows: same method and student, else same student."""
    past = rows[rows["status"] == Status.OK]
    seconds = (past["train_s"] + past["eval_s"]) / past["epochs_done"]
    known, unknown_cells = 0.0, 0
    for cell in missing:
        student = past["student"] == cell.student
        for match in (student & (past["method"] == cell.method), student):
            if match.any():
                known += float(seconds[match].median()) * cell.recipe.epochs
                break
        else:
            unknown_cells += 1
    if missing and unknown_cells == len(missing):
        return "no past row tells how long they take"
    text = f"estimated {known / 3600:.2f} hours of students' own time, by past rows"
    return text + (f", and {unknown_cells} cells that no past row tells about" if unknown_cells else "")
