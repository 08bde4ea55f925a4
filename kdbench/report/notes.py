"""What stands under a table: how to read it, what is missing and why, and where the numbers come from."""

from __future__ import annotations

import pandas as pd

from kdbench import stats
from kdbench.report import sampling
from kdbench.report.board import Board
from kdbench.report.frames import ARROW, Table

BICKD = "bickd is a reconstruction from the paper's abstract (no code released), not the authors' code."
UNKNOWN = "the rows do not hold the seconds of the teacher and of the data, or the teacher's outputs came from a cache."
WEAK = "†"  # marks a teacher below the accuracy that the suite expects


def legend(baseline: str) -> list[str]:
    """How to read any of the tables."""
    return [
        "Cells: mean ± std (ddof 1) of top-1 in percent and (number of seeds). Bold (* in text): the "
        "best mean of two or more seeds, and all whose paired 95% interval to it contains 0; nothing is bold "
        "where no interval can be had.",
        f"Δ: method - {baseline} on the same seed, in points, with its 95% t-interval. "
        "p: exact two-sided sign-flip test over pairs, Holm-adjusted for the methods shown. "
        "W-T-L: pairs won, tied (|Δ| below the pooled seed std), lost.",
        f"Costs are seconds an epoch in multiples of {baseline}'s on the same pair, seed, device, thread count and "
        "kind of cohort (alone, or taking turns with others): median over seeds, geometric mean over pairs. "
        f"Step x {baseline}: the method's own forward, loss, backward and update alone; the teacher's outputs and the "
        f"batches, which a cohort shares, are not in it. Alone x {baseline}: what training this one method takes: its "
        "own steps, the teacher's outputs that it reads (none for plain training) and the batches. "
        "Detects: the smallest true Δ that this n and spread would show (two-sided alpha .05, power .8).",
        "–: no value; ✗: diverged; n/a: the method does not apply (see the notes).",
    ]


def notes(board: Board) -> list[str]:
    """What is to be said under one table."""
    table = board.table
    rule = f"Accuracy: top-1 on the {table.split} split, last epoch."
    honesty = [BICKD] if (table.rows["method"] == "bickd").any() else []
    sampled = sampling.notes(table.finished)
    return [
        rule,
        *_summary(board),
        *_cells(board),
        *_costs(board),
        *_records(table),
        *sampled,
        *_teachers(table),
        *honesty,
    ]


def _costs(board: Board) -> list[str]:
    """Methods whose seconds cannot be compared with the baseline's, and why."""
    summary = board.summary
    others = summary.index[summary["delta"].notna()]
    if not len(others):
        return []
    timed = board.table.finished.dropna(subset=["epoch_s"])["label"].unique()
    unlike = [label for label in others if label in timed and pd.isna(summary["step_cost"][label])]
    lines = []
    if unlike and board.baseline in timed:
        lines.append(
            f"No cost (–) of {', '.join(unlike)}: on some pair no seed was run on the device, thread count and kind of "
            f"cohort (alone or with others) that {board.baseline}'s was."
        )
    blank = [label for label in others if pd.isna(summary["alone_cost"][label]) and label not in unlike]
    if blank and len(blank) < len(others):
        lines.append(f"No cost alone (–) of {', '.join(blank)}: {UNKNOWN}")
    elif blank:
        lines.append(f"No column of the cost alone: {UNKNOWN}")
    return lines


def _summary(board: Board) -> list[str]:
    base, count = board.baseline, len(board.common)
    if not count:
        return ["No Δ or rank: no pair was completed by every method that has at least half of the pairs."]
    lines = [f"Δ, p, W-T-L, rank and cost are over {_which(board)}."]
    if not board.has_baseline:
        return [*lines, f"No Δ: {base} has no finished run with the suite's own settings here."]
    if pd.isna(board.summary["rank"][base]):
        return [*lines, f"No Δ: {base} has completed less than half of the pairs."]
    lines.append(f"Intervals are over {'pairs' if board.over_pairs() else 'the seeds of this one pair'}.")
    if count < stats.MIN_PAIRS:
        lines.append(f"p: {stats.TOO_FEW} ({count} of at least {stats.MIN_PAIRS}).")
    return [" ".join(lines)]


def _which(board: Board) -> str:
    """The pairs behind the summary, in words."""
    count, total = len(board.common), len(board.table.pairs)
    if total == 1:
        return "the one pair"
    rule = "completed by every method that has at least half of the pairs; other methods show –"
    if count == total:
        return f"all {total} pairs, {rule}"
    return f"{count} of {total} pairs ({', '.join(board.common)}), {rule}"


def _cells(board: Board) -> list[str]:
    """Cells of one seed, skipped and diverged ones."""
    cells = board.cells.reset_index()
    lines = (
        ["(1): one seed has no spread and no interval, and is never bold."] if (cells["n"] == 1).any() else []
    )
    for reason, group in cells[cells["skipped"] != ""].groupby("skipped"):
        lines.append(f"n/a: {_where(group, group['pair'])}: {reason}")
    failed = cells[cells["diverged"] > 0]
    if len(failed):
        seeds = failed["diverged"].astype(str) + " of " + (failed["diverged"] + failed["n"]).astype(str)
        where = _where(failed, failed["pair"] + " (" + seeds + " seeds)")
        lines.append(f"✗ diverged (ranked last, a loss, no Δ): {where}.")
    return lines + _unequal(board)


def _unequal(board: Board) -> list[str]:
    """Pairs on which the methods have different numbers of seeds."""
    n = board.cells["n"].where(board.cells["n"] > 0).groupby("pair").agg(["min", "max"])
    uneven = n[n["min"] < n["max"]]
    if uneven.empty:
        return []
    where = ", ".join(f"{pair} ({low:.0f} to {high:.0f})" for pair, low, high in uneven.itertuples())
    return [
        f"Unequal numbers of seeds: {where}. Δ and bold use the shared seeds; a mean or rank each method's own."
    ]


def _where(cells: pd.DataFrame, pairs: pd.Series) -> str:
    """'dkd on A -> B, C -> D; kd on A -> B'"""
    by_label = pairs.groupby(cells["label"]).agg(", ".join)
    return "; ".join(f"{label} on {on}" for label, on in by_label.items())


def _records(table: Table) -> list[str]:
    """Runs without a result, runs left out, and runs that stand in several pairs."""
    lines = []
    runs = table.rows.drop_duplicates("cell_id")["status"].value_counts().sort_index()
    failed = [f"{n} {status}" for status, n in runs.items() if status not in ("ok", "diverged", "skipped")]
    if failed:
        lines.append(f"Without a result (–): {', '.join(failed)}; the command that ran them tries again.")
    if table.setting:
        lines.append(
            f"Other tables of this suite have another setting. This one's: {table.setting}.{_unknown(table)}"
        )
    lines += _codes(table) + _machines(table)
    if table.set_aside:
        lines.append(
            f"Set aside: {table.set_aside} older runs of the same name with another method version, "
            "other parameters or data, or a teacher cache."
        )
    cached = table.finished[table.finished["teacher_cache"] != ""].drop_duplicates("cell_id")
    if len(cached):
        total, kinds = table.finished["cell_id"].nunique(), ", ".join(sorted(set(cached["teacher_cache"])))
        lines.append(f"{len(cached)} of {total} runs took the teacher's logits from a cache ({kinds}).")
    if table.rows.duplicated("cell_id").any():
        lines.append("A method without a teacher runs once for each student and seed; it joins every pair.")
    return lines


def _unknown(table: Table) -> str:
    if "setting: unknown" not in table.setting:
        return ""
    return (
        " Its rows do not say how they were trained, so they are compared with each other only; "
        "`kdbench results upgrade FILE` fills in what can be known."
    )


def _codes(table: Table) -> list[str]:
    """Methods that were run by several states of their code, and what to do about it."""
    if not table.codes:
        return []
    return [
        f"Several states of the code of one method version: {', '.join(table.codes)} {_was(table.codes)} run by an "
        "older state than the method's newest runs here and counted apart; `kdbench run --force` trains them again by "
        "today's code, and a change that gives other numbers needs a new `version`."
    ]


def _was(items: tuple[str, ...]) -> str:
    return "was" if len(items) == 1 else "were"


def _machines(table: Table) -> list[str]:
    """Devices and thread counts, where the runs of one table had several: they change the last digits of a number."""
    used = table.finished.drop_duplicates("cell_id")
    kinds = {
        "devices": sorted(set(used["device"]) - {""}),
        "thread counts": [f"{n:g}" for n in sorted(used["threads"].dropna().unique())],
    }
    mixed = [f"{name} ({', '.join(found)})" for name, found in kinds.items() if len(found) > 1]
    if not mixed:
        return []
    return [
        f"Runs with several {' and '.join(mixed)} are compared here: bits are equal only on one kind of device with "
        "one thread count, so a part of these differences is rounding."
    ]


def weak_teachers(table: Table) -> dict[str, str]:
    """pair -> what is to be said of its teacher, where it is below the accuracy that the suite expects."""
    known = table.rows.dropna(subset=["teacher_top1", "teacher_expected"])
    weak = known[known["teacher_top1"] < known["teacher_expected"]].drop_duplicates("pair", keep="last")
    return {
        str(pair): f"{WEAK} teacher {str(pair).split(ARROW)[0]} reaches {top1:.2f}, the suite expects "
        f"{expected:.2f}: do not compare with published numbers."
        for pair, top1, expected in zip(
            weak["pair"], weak["teacher_top1"], weak["teacher_expected"], strict=True
        )
    }


def _teachers(table: Table) -> list[str]:
    return sorted(set(weak_teachers(table).values()))


def provenance(suite: str, tables: list[Table]) -> list[str]:
    """What every artefact ends with: suite, recipes, rows used, commits, devices, torch; and the teachers."""
    rows = pd.concat([t.rows for t in tables]).drop_duplicates(["cell_id", *stats.PAIR])
    once = rows.drop_duplicates("cell_id")
    used = once[once["status"].isin(["ok", "diverged"])]
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
    found = sorted(set(column.dropna().astype(str)) - {""})
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more or "unknown"
