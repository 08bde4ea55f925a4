"""What stands under a table: how to read it, what is missing and why, and where the numbers come from."""

from __future__ import annotations

import pandas as pd

from kdbench import stats
from kdbench.report.board import Board
from kdbench.report.frames import Table

BICKD = "bickd is a reconstruction from the paper's abstract (no code released), not the authors' code."
WEAK = "†"  # marks a teacher below the accuracy that the suite expects


def notes(board: Board) -> list[str]:
    """The sentences under one table."""
    return [
        *_reading(board),
        *_summary(board),
        *_gaps(board),
        *_teachers(board.table),
        *_honesty(board.table),
    ]


def _reading(board: Board) -> list[str]:
    return [
        f"Top-1 (%) on the {board.table.split} split, last epoch: mean ± std (ddof 1) over n seeds, (n) beside it.",
        "Bold (*): the best mean of those with two seeds or more, and all whose paired 95% interval to it contains 0; "
        "nothing is bold where no interval can be had.",
    ]


def _summary(board: Board) -> list[str]:
    if not board.has_baseline:
        return [f"No Δ: {board.baseline} has no finished run with the suite's own settings here."]
    if not board.common:
        return [
            "No summary over pairs: no pair has been completed by every method that has at least half of them."
        ]
    count, total = len(board.common), len(board.table.pairs)
    if total == 1:
        over = "the one pair"
    else:
        which = (
            f"all {total} pairs"
            if count == total
            else f"{count} of {total} pairs ({', '.join(board.common)})"
        )
        over = f"{which}, those which every method with at least half of the pairs has completed; the others show –"
    spread = "the pairs' means" if board.over_pairs() else "the seeds of this pair only"
    lines = [
        f"Δ, W-T-L, rank and cost: over {over}.",
        f"Δ = method - {board.baseline} on the same seed, in points; its 95% t-interval is over {spread}; detects = "
        "the smallest true Δ that this n and spread would show (two-sided alpha .05, power .8).",
    ]
    if count < stats.MIN_PAIRS:
        lines.append(f"p: {stats.TOO_FEW} ({count} of at least {stats.MIN_PAIRS}).")
    else:
        lines.append("p: exact two-sided sign-flip test over the pairs, Holm-adjusted for the methods shown.")
    lines.append(
        "W-T-L: pairs won, tied (Δ below the pooled seed std) and lost. Cost: train time an epoch as a multiple of "
        f"{board.baseline}'s on the same pair, seed and device (geometric mean over pairs)."
    )
    return lines


def _gaps(board: Board) -> list[str]:
    lines = []
    cells = board.cells.reset_index()
    for reason, group in cells[cells["skipped"] != ""].groupby("skipped"):
        lines.append(f"n/a: {_where(group)}: {reason}")
    diverged = cells[cells["diverged"] > 0]
    if len(diverged):
        lines.append(f"✗ diverged (ranked last, a loss, in no mean): {_where(diverged, seeds=True)}.")
    failed = board.table.rows.drop_duplicates("cell_id")["status"].value_counts()
    failed = failed.drop(["ok", "diverged", "skipped"], errors="ignore").sort_index()
    if len(failed):
        counts = ", ".join(f"{n} {status}" for status, n in failed.items())
        lines.append(f"Without a result (–): {counts}; the command that ran them tries them again.")
    if board.table.set_aside:
        lines.append(
            f"Set aside: {board.table.set_aside} older records of another method version or other parameters "
            "under the same label."
        )
    shared = board.table.rows[board.table.rows["teacher_id"] != ""].duplicated(["cell_id"])
    if shared.any():
        lines.append(
            "A method without a teacher has one run for each student and seed; it stands in every pair."
        )
    return lines


def _where(cells: pd.DataFrame, seeds: bool = False) -> str:
    """'dkd on A -> B, C -> D; kd on A -> B', with the number of seeds if asked for."""
    parts = []
    for label, group in cells.groupby("label"):
        pairs = [
            f"{c.pair} ({c.diverged} of {c.diverged + c.n} seeds)" if seeds else c.pair
            for c in group.itertuples()
        ]
        parts.append(f"{label} on {', '.join(pairs)}")
    return "; ".join(parts)


def weak_teachers(table: Table) -> dict[str, tuple[str, float, float]]:
    """pair -> (teacher, its top-1, the suite's expectation), where it is below the expectation."""
    known = table.rows.dropna(subset=["teacher_top1", "teacher_expected"])
    weak = known[known["teacher_top1"] < known["teacher_expected"]].drop_duplicates("pair", keep="last")
    return {r.pair: (r.pair.split(" -> ")[0], r.teacher_top1, r.teacher_expected) for r in weak.itertuples()}


def _teachers(table: Table) -> list[str]:
    lines = [
        f"{WEAK} teacher {name} reaches {top1:.2f}, the suite expects {expected:.2f}: its pairs say little about "
        "published numbers."
        for name, top1, expected in weak_teachers(table).values()
    ]
    return sorted(set(lines))


def _honesty(table: Table) -> list[str]:
    return [BICKD] if (table.rows["method"] == "bickd").any() else []


def provenance(suite: str, tables: list[Table]) -> list[str]:
    """What every artefact ends with: suite, recipes, rows used, commits, devices, dirty rows, torch versions."""
    rows = pd.concat([t.rows for t in tables]).drop_duplicates("cell_id")
    used = rows[rows["status"].isin(["ok", "diverged"])]
    dirty = int(used["git_dirty"].astype(str).isin(["True", "1", "1.0"]).sum())
    return [
        f"Suite {suite}; recipe {_values(used['recipe_id'])}; {len(used)} rows used of {len(rows)} cells; "
        f"commit {_values(used['git_commit'].str[:10])}; rows from uncommitted code: {dirty}; "
        f"device {_values(used['device'])}; torch {_values(used['torch'])}."
    ]


def _values(column: pd.Series, most: int = 6) -> str:
    found = sorted(column.dropna().astype(str).unique())
    return (
        ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "") or "unknown"
    )
