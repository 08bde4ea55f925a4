"""Where the numbers of a report come from: rows, recipes, commits, devices and teachers."""

from __future__ import annotations

import pandas as pd

from kdbench.report.tables import Table
from kdbench.results.statistics import summary as stats
from kdbench.utils.status import Status


def provenance(suite: str, tables: list[Table]) -> list[str]:
    """What every artefact ends with: suite, recipes, rows used, commits, devices, torch; and the teachers."""
    rows = pd.concat([t.rows for t in tables]).drop_duplicates(["cell_id", *stats.PAIR])
    once = rows.drop_duplicates("cell_id")
    used = once[once["status"].isin([Status.OK, Status.DIVERGED])]
    dirty = int(used["git_dirty"].astype(str).isin(["True", "1", "1.0"]).sum())
    return [
        f"Suite {suite}; recipe {_values(used['recipe_id'])}; {len(used)} rows used of {len(once)} cells; "
        f"commit {_values(used['git_commit'].str[:10])}; rows from uncommitted code: {dirty}; "
        f"device {_values(used['device'])}; torch {_values(used['torch'])}.",
        *_teachers_used(rows[rows["teacher"] != ""]),
        *_seen_in_training(once),
    ]


def _seen_in_training(rows: pd.DataFrame) -> list[str]:
    """Evaluation images that are training images too, where some are."""
    counts = pd.to_numeric(rows["test_in_train"], "coerce").groupby([rows["dataset"], rows["split"]]).max()
    return [
        f"{count:.0f} images of the {split} split of {dataset} are training images too: accuracies on it are too high."
        for (dataset, split), count in counts.items()
        if count > 0
    ]


def _teachers_used(rows: pd.DataFrame) -> list[str]:
    """Every teacher with the hash of its weights and its accuracy, on each split where it has served."""
    if rows.empty:
        return []
    names = []
    for (name, weights), group in rows.groupby(["teacher", "teacher_id"]):
        reached = group.dropna(subset=["teacher_top1"]).groupby("split")["teacher_top1"].last()
        top1 = ", ".join(f"{value:.2f} {split}" for split, value in reached.items()) or "accuracy unknown"
        names.append(f"{name} {weights} ({top1})")
    return [f"Teachers (weights, top-1): {'; '.join(names)}."]


def _values(column: pd.Series, most: int = 6) -> str:
    values = sorted(set(column.dropna().astype(str)) - {""})
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more or "unknown"
