"""The notes under a table: how to read it, and what is missing and why."""

from __future__ import annotations

import pandas as pd

from kdbench.report import sampling
from kdbench.report.leaderboard import Board
from kdbench.report.metrics import TOP1, Metric
from kdbench.report.tables import ARROW, Table
from kdbench.results.statistics.power import MOST, needed
from kdbench.teachers.expected import falls_short
from kdbench.utils.method_facts import shipped
from kdbench.utils.papers import FIDELITIES
from kdbench.utils.status import DONE

UNKNOWN = "the rows do not hold the seconds of the teacher and of the data, or the teacher's outputs came from a cache."
ERRORS = {  # whose intervals do not have the pooled error, and why
    "shrunk": "Variances differ between methods (Bartlett), so each interval has its own, averaged with the pooled one",
    "own": "Interval by the method's own paired t, for it or the baseline looks noisier than the others",
}
PAIRS_LIKE_THESE = (
    "Pairs like these: the same difference with the error from pair to pair, for a pair that is not in the table; "
    "its p counts all methods (Dunnett; where residuals are not normal, p and interval are by exact sign flips). "
    "W-T-L: pairs whose own interval shows the method better, neither, and worse."
)
WEAK = "†"  # marks a teacher below the accuracy that the suite expects


def legend(baseline: str, metric: Metric = TOP1, several_pairs: bool = True) -> list[str]:
    """How to read the tables of a metric; several_pairs: whether one of them has more than one pair."""
    return [
        f"Entries: mean ± std (ddof 1) of {metric.words} and (number of seeds). Bold (* in text): not shown to be "
        "worse than the best of its pair (multiple comparisons with the best, Hsu, with seeds as blocks and one error "
        "pooled over methods); no bold method is "
        f"{'below' if metric.higher else 'above'} one that is not.",
        f"Δ: method - {baseline} on the same seeds, in {metric.unit}, with its 95% interval from that pooled error; "
        "over several pairs it is the mean of exactly these pairs (error from seeds). §: still shown when all "
        f"comparisons with {baseline} are counted (Dunnett, family error .05).",
        *([PAIRS_LIKE_THESE] if several_pairs else []),
        *cost_legend(baseline),
    ]


def cost_legend(baseline: str) -> list[str]:
    """How to read costs and the signs of any table."""
    return [
        f"Costs are seconds per epoch in multiples of {baseline}'s on the same pair, seed, device, thread count and "
        "kind of cohort (alone, or taking turns with others), in one cohort where there is one: median over seeds, "
        "geometric mean over pairs. "
        f"Step x {baseline}: the method's own forward, loss, backward and update alone; the teacher's outputs and the "
        f"batches, which a cohort shares, are not in it. Alone x {baseline}: the whole cost of training one method: "
        "its own steps, the teacher's outputs that it reads (none for plain training) and the batches.",
        "–: no value; ✗: diverged; ↓: a run collapsed; ~: far noisier than the others; n/a: the method does not apply "
        "(see the notes). docs/statistics.md explains the rules and their error rates.",
    ]


def short_legend(baseline: str) -> list[str]:
    """What the marks of a table mean, for the end of a run."""
    return [
        "Mean ± std (seeds) of top-1 in percent; *: not shown to be worse than the best. "
        f"Δ: paired by seed with {baseline}, in points, with its 95% interval; §: shown with all comparisons counted. "
        f"Costs: seconds per epoch in multiples of {baseline}'s. `kdbench report` writes figures and a page that "
        "explains every column."
    ]


def notes(board: Board) -> list[str]:
    """The notes under one table."""
    table = board.table
    name = "Accuracy: top-1" if board.metric is TOP1 else board.metric.words.capitalize()
    rule = f"{name} on the {table.split} split, last epoch."
    sampled = sampling.notes(table.finished) if board.metric.unit == TOP1.unit else []
    return [
        rule,
        *_summary(board),
        *_entries(board),
        *_failed(board),
        *costs(board),
        *_records(table),
        *sampled,
        *_teachers(table),
        *_reconstructed(table),
    ]


def costs(board: Board) -> list[str]:
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
    apart = [label for label in others if label not in unlike and summary["cost_apart"][label]]
    if apart:
        lines.append(
            f"‡: {', '.join(apart)} and {board.baseline} were not timed in one cohort: the machine may have been "
            "under another load."
        )
    blank = [label for label in others if pd.isna(summary["alone_cost"][label]) and label not in unlike]
    if blank and len(blank) < len(others):
        lines.append(f"No cost alone (–) of {', '.join(blank)}: {UNKNOWN}")
    elif blank:
        lines.append(f"No column of the cost alone: {UNKNOWN}")
    return lines


def _summary(board: Board) -> list[str]:
    return [*_bold(board), *_swept(board.table), *_differences(board), *_ranks(board), *_power(board)]


def _swept(table: Table) -> list[str]:
    """Settings that were tried on the test split, which are never bold."""
    if not table.swept:
        return []
    return [
        f"Tried on the test split, and never bold: {', '.join(table.swept)}. The best of several values is a choice "
        "that the test images made; choose values on --split holdout."
    ]


def _bold(board: Board) -> list[str]:
    """How far below the best of each pair is still bold, or why nothing is."""
    form = board.metric.form
    reach = {pair: best.yardstick for pair, best in board.best.items() if not best.reason}
    lines = []
    if len(reach) == 1:
        lines.append(f"Bold: within {next(iter(reach.values())):{form}} of the best.")
    elif reach:
        each = ", ".join(f"{yardstick:{form}} ({pair})" for pair, yardstick in reach.items())
        less = "less" if board.metric.higher else "plus"
        lines.append(f"Bold: within the best of the pair {less} {each}.")
    for reason, pairs in _by_reason(board).items():
        lines.append(f"Nothing is bold on {', '.join(pairs)}: {reason}.")
    return lines


def _by_reason(board: Board) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for pair, best in board.best.items():
        if best.reason:
            reasons.setdefault(best.reason, []).append(pair)
    return reasons


def _differences(board: Board) -> list[str]:
    """What the differences to the baseline are over, and whose error is not the pooled one."""
    base, pairs = board.baseline, board.table.pairs
    if not board.has_baseline:
        return [f"No Δ: {base} has no finished run with the suite's own settings here."]
    lines = []
    if board.over_pairs():
        lines.append(
            f"Δ, W-T-L and cost of a method are over the pairs that it shares with {base}, of {len(pairs)} in all."
        )
        partly = board.summary["delta_n"]
        partly = partly[(partly > 0) & (partly < len(pairs))]
        if len(partly):
            lines.append(f"On fewer: {', '.join(f'{label} ({n:.0f})' for label, n in partly.items())}.")
    if board.alike is not None and "teacher" in board.table.rows:
        lines += _units(board)
    if board.over_pairs() and board.table.teacher:
        lines.append(
            f"All pairs have the teacher {board.table.teacher}, so they say nothing of pairs with other teachers."
        )
    kinds = board.entries.reset_index().groupby("error")["label"].unique()
    for kind, why in ERRORS.items():
        if kind in kinds:
            lines.append(f"{why}: {', '.join(sorted(kinds[kind]))}.")
    return [" ".join(lines)] if lines else []


def _units(board: Board) -> list[str]:
    alike = board.alike
    assert alike is not None
    lines = []
    if alike.units < len(board.table.pairs):
        lines.append(
            f"Pairs like these: pairs share teachers, so the unit is the teacher ({alike.units} of them)."
        )
    if alike.units < 3:
        lines.append(f"With {alike.units} units hardly anything can be shown of other pairs.")
    return lines


def _ranks(board: Board) -> list[str]:
    """What the ranks are over, where that is not everything; one pair has none."""
    if not board.over_pairs():
        return []
    if not board.common:
        return ["No rank: no pair was completed."]
    ranked = board.summary.index[board.summary["rank"].notna()]
    if len(board.common) == len(board.table.pairs) and len(ranked) == len(board.summary):
        return []
    return [
        f"Ranks and means are over the largest complete block: {len(board.common)} of {len(board.table.pairs)} pairs "
        f"({', '.join(board.common)}) and {len(ranked)} of {len(board.summary)} methods; the others show –."
    ]


def _power(board: Board) -> list[str]:
    """The smallest difference that the table would show, and the runs that smaller ones take."""
    power, metric = board.power, board.metric
    if pd.isna(power.detectable):
        return []
    runs = needed(power.sd, power.methods, metric.sizes)
    more = [f"{size:g} {metric.unit}: {n or 'over ' + str(MOST)}" for size, n in runs.items()]
    return [
        f"Detects: a true difference of {power.detectable:{metric.form}} {metric.unit} is found with probability .8 "
        f"(two-sided .05, one comparison). {power.unit.capitalize()} needed for {'; '.join(more)}."
    ]


def _failed(board: Board) -> list[str]:
    """Differences of methods with failed runs, without these and with them at chance level."""
    lines = []
    for label, row in board.failed.iterrows():
        without = "–" if pd.isna(row["without"]) else f"{row['without']:+.2f}"
        robust = "–" if pd.isna(row["robust"]) else f"{row['robust']:+.2f}"
        own = (
            f"{row['failed']:.0f} of {row['runs']:.0f} runs" if row["failed"] else f"runs of {board.baseline}"
        )
        lines.append(
            f"{label}: {own} failed (diverged or collapsed). Δ without failed runs {without}; with them at chance "
            f"level, by medians over seeds and pairs, {robust}."
        )
    return lines


def _entries(board: Board) -> list[str]:
    """Entries of one seed, skipped and diverged ones."""
    entries = board.entries.reset_index()
    lines = (
        ["(1): one seed has no spread and no interval, and is never bold."]
        if (entries["n"] == 1).any()
        else []
    )
    for reason, group in entries[entries["skipped"] != ""].groupby("skipped"):
        lines.append(f"n/a: {_where(group, group['pair'])}: {reason}")
    failed = entries[entries["diverged"] > 0]
    if len(failed):
        seeds = failed["diverged"].astype(str) + " of " + (failed["diverged"] + failed["n"]).astype(str)
        where = _where(failed, failed["pair"] + " (" + seeds + " seeds)")
        lines.append(
            f"✗ diverged (ranked last, never bold, a loss on that pair; Δ is of the other seeds): {where}."
        )
    return lines + _unequal(board)


def _unequal(board: Board) -> list[str]:
    """Pairs on which the methods have different numbers of seeds."""
    n = board.entries["n"].where(board.entries["n"] > 0).groupby("pair").agg(["min", "max"])
    uneven = n[n["min"] < n["max"]]
    if uneven.empty:
        return []
    where = ", ".join(f"{pair} ({low:.0f} to {high:.0f})" for pair, low, high in uneven.itertuples())
    return [
        f"Unequal numbers of seeds: {where}. Δ and bold use the shared seeds; a mean or rank each method's own."
    ]


def _where(entries: pd.DataFrame, pairs: pd.Series) -> str:
    """List the pairs of each label: 'dkd on A -> B, C -> D; kd on A -> B'."""
    by_label = pairs.groupby(entries["label"]).agg(", ".join)
    return "; ".join(f"{label} on {on}" for label, on in by_label.items())


def _records(table: Table) -> list[str]:
    """Runs without a result, runs left out, and runs that serve several pairs."""
    lines = []
    runs = table.rows.drop_duplicates("cell_id")["status"].value_counts().sort_index()
    failed = [f"{n} {status}" for status, n in runs.items() if status not in DONE]
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
    mixed = [f"{name} ({', '.join(names)})" for name, names in kinds.items() if len(names) > 1]
    if not mixed:
        return []
    return [
        f"Runs with several {' and '.join(mixed)} are compared here: bits are equal only on one kind of device with "
        "one thread count, so a part of these differences is rounding."
    ]


def weak_teachers(table: Table) -> dict[str, str]:
    """pair -> a warning of its teacher, where that is below the accuracy that the suite expects."""
    known = table.rows.dropna(subset=["teacher_top1", "teacher_expected"])
    short = falls_short(known["teacher_top1"], known["teacher_expected"])
    weak = known[short].drop_duplicates("pair", keep="last")
    return {
        str(pair): f"{WEAK} teacher {str(pair).split(ARROW)[0]} reaches {top1:.2f}, the suite expects "
        f"{expected:.2f}: do not compare with published numbers."
        for pair, top1, expected in zip(
            weak["pair"], weak["teacher_top1"], weak["teacher_expected"], strict=True
        )
    }


def _teachers(table: Table) -> list[str]:
    return sorted(set(weak_teachers(table).values()))


def _reconstructed(table: Table) -> list[str]:
    """A warning for each method that was written without its paper's equations."""
    fidelities = {name: facts.fidelity for name, facts in shipped().items()}
    return [
        f"{name} is a reconstruction, {FIDELITIES['reconstruction']}: do not quote its numbers as the paper's."
        for name in sorted(set(table.rows["method"]))
        if fidelities.get(name) == "reconstruction"
    ]
