"""leaderboard.tex, as papers print it, and its appendix: spreads, comparisons with the baseline and other tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kdbench.report import notes as words
from kdbench.report.columns import (
    ALPHA,
    DIVERGED,
    NONE,
    SKIPPED,
    STATES,
    SURVIVES,
    Column,
    Text,
    columns,
    said_below,
)
from kdbench.report.leaderboard import Board
from kdbench.report.notes import WEAK, weak_teachers
from kdbench.report.order import APPENDIX, count
from kdbench.report.render import latex
from kdbench.report.render.latex import Form, Tex, bold, escape
from kdbench.report.render.paper_tables import family
from kdbench.report.tables import ARROW, Table
from kdbench.results.statistics.blocks import COLLAPSED, NOISY

STUDENT = "ce"  # the method that trains the plain student
SPREADS = 4  # pairs of which the main table has room for spreads and intervals
SMALL = 6  # pairs in a column of footnotesize
SAME, CROSS = "same family", "cross family"


def leaderboard(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """The main table: teacher and plain student, then the methods, pairs of one family first, notes in its float."""
    board = boards[0]
    pairs = _pairs(board.table)
    spreads = len(pairs) <= SPREADS
    header = ["method", *map(_stacked, pairs)]
    rows = [["teacher", *_teachers(board, pairs)]]
    rows += [[_name(label), *_entries(board, label, pairs, spreads)] for label in _ordered(board)]
    top = 1 + (STUDENT in board.labels)
    if board.has_baseline:
        header.append(f"Δ vs {board.baseline}")
        others = [_delta(board, label, spreads) for label in _ordered(board)]
        rows = [[*row, text] for row, text in zip(rows, ["", *others], strict=True)]
    size = "footnotesize" if len(pairs) <= SMALL else "scriptsize"
    groups = _groups(pairs)
    form = Form(size, len(pairs) > SPREADS, [*groups, ""] if groups else [], top)
    caption = f"Top-1 accuracy (%) on {_conditions(board.table)}."
    return _file([latex.table(header, rows, caption, f"tab:{suite}", _notes(board, spreads), form)], footer)


def appendix(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """Of the main table the spreads that it has no room for, and how each method compares; then the other tables."""
    parts = []
    if len(boards[0].table.pairs) > SPREADS:
        parts.append(_spreads(suite, boards[0]))
    parts.append(_comparison(suite, boards[0], footer))
    parts += [f"% {APPENDIX}"] * (len(boards) > 1)
    parts += [_whole(suite, board, i) for i, board in enumerate(boards[1:], 2)]
    return _file(parts, footer)


def _file(parts: Sequence[str], footer: Sequence[str]) -> str:
    comments = ["% " + " ".join(line.split()) for line in footer]
    return "\n".join([latex.PACKAGES, *comments, *parts])


def _pairs(table: Table) -> list[str]:
    """Those of one family first."""
    return sorted(table.pairs, key=lambda pair: (_group(pair) == CROSS, pair))


def _group(pair: str) -> str:
    teacher, _, student = pair.partition(ARROW)
    return SAME if not student or family(teacher) == family(student) else CROSS


def _groups(pairs: Sequence[str]) -> list[str]:
    """A name above the methods' names and above each pair; none where all pairs are of one group."""
    groups = [_group(pair) for pair in pairs]
    return ["", *groups] if len(set(groups)) > 1 else []


def _stacked(pair: str) -> str:
    """Teacher above student."""
    return pair.replace(ARROW, f"{ARROW.rstrip()}\n")


def _ordered(board: Board) -> list[str]:
    """The plain student, then the others in the board's order."""
    return sorted(board.labels, key=lambda label: label != STUDENT)


def _name(label: str) -> str:
    return f"student ({STUDENT})" if label == STUDENT else label


def _conditions(table: Table) -> str:
    """'cifar100, 240 epochs, fp32'; the test split is what a reader expects."""
    split = "" if table.split == "test" else f", {table.split} split"
    precision = f", {table.precision}" if table.precision else ""
    return f"{table.dataset}{split}, {table.epochs} epoch{'s' * (table.epochs != '1')}{precision}"


def _teachers(board: Board, pairs: Sequence[str]) -> list[str]:
    """Accuracies of the teachers, marked where one is below what the suite expects."""
    weak = weak_teachers(board.table)
    reached = board.table.rows.dropna(subset=["teacher_top1"]).groupby("pair")["teacher_top1"].last()
    return [f"{reached[p]:.2f}{WEAK * (p in weak)}" if p in reached else NONE for p in pairs]


def _entries(board: Board, label: str, pairs: Sequence[str], spreads: bool) -> list[Tex]:
    most = board.entries["n"].max()
    return [_entry(board.entries.loc[(label, pair)].to_dict(), spreads, most) for pair in pairs]


def _entry(entry: Mapping, spreads: bool, most: int) -> Tex:
    """The mean, bold where it may be, with its spread, its seeds where they are not as many as ``most``, and marks."""
    if not entry["n"]:
        return Tex(escape(DIVERGED if entry["diverged"] else SKIPPED if entry["skipped"] else NONE))
    mean = f"{entry['mean']:.2f}"
    failed = f"{DIVERGED}{entry['diverged']}" if entry["diverged"] else ""
    marks = failed + STATES.get(entry["state"], "").strip()
    spread = f"± {entry['std']:.2f}" if spreads and entry["n"] > 1 else ""
    beside = " ".join(filter(None, [spread, f"({entry['n']})" if entry["n"] < most else ""]))
    return Tex(
        (bold(mean) if entry["bold"] else escape(mean))
        + (rf"\,{{\scriptsize {escape(beside)}}}" if beside else "")
        + (rf"\textsuperscript{{{escape(marks)}}}" if marks else "")
    )


def _delta(board: Board, label: str, interval: bool) -> str:
    row = board.summary.loc[label]
    if label == board.baseline or np.isnan(row["delta"]):
        return NONE
    limits = f" [{row['low']:+.2f}, {row['high']:+.2f}]" if interval and not np.isnan(row["low"]) else ""
    return f"{row['delta']:+.2f}{limits}{SURVIVES * bool(row['p_family'] < ALPHA)}"


def _notes(board: Board, spreads: bool) -> list[str]:
    """What a reader of the main table needs, as one paragraph; the rest is in the appendix."""
    entries = board.entries
    seeds = sorted(set(entries["n"][entries["n"] > 0])) or [0]
    over = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else count(seeds[0], "seed")
    lines = [f"Mean{' ± std' * spreads} over {over}, last epoch."]
    if STUDENT in board.labels:
        lines.append(f"Student ({STUDENT}): trained without a teacher.")
    if entries["bold"].any():
        lines.append(
            "Bold: not shown to be worse than the best of its column (multiple comparisons with the best)."
        )
    return [" ".join([*lines, *_difference(board, spreads), *_marks(board)])]


def _difference(board: Board, interval: bool) -> list[str]:
    if not board.has_baseline:
        return []
    over = " (mean over the pairs that both have)" * board.over_pairs()
    lines = [
        f"Δ: difference to {board.baseline} on the same seeds{over}{', with its 95% interval' * interval}."
    ]
    if (board.summary["p_family"] < ALPHA).any():
        lines.append(f"{SURVIVES}: shown with all comparisons counted (Dunnett, .05).")
    return lines


def _marks(board: Board) -> list[str]:
    """The meaning of each mark that is in the table."""
    entries = board.entries
    said = {
        f"{WEAK}: below the accuracy that the suite expects.": bool(weak_teachers(board.table)),
        f"{DIVERGED}: diverged; {DIVERGED}k: k seeds diverged, the mean is of the others.": entries[
            "diverged"
        ].any(),
        "↓: a run collapsed.": (entries["state"] == COLLAPSED).any(),
        "~: far noisier than the others.": (entries["state"] == NOISY).any(),
        f"{SKIPPED}: the method does not apply.": (entries["skipped"] != "").any(),
        f"Tried on the test split, and never bold: {', '.join(board.table.swept)}.": bool(board.table.swept),
    }
    return [text for text, there in said.items() if there]


def _spreads(suite: str, board: Board) -> str:
    """Standard deviations and numbers of seeds, in the form of the main table."""
    pairs, most = _pairs(board.table), int(board.entries["n"].max())
    header = ["method", *map(_stacked, pairs)]
    rows = [
        [_name(label), *(_spread(board, label, pair, most) for pair in pairs)] for label in _ordered(board)
    ]
    few = ", else of as many as are in parentheses" if (board.entries["n"] != most).any() else ""
    caption = (
        f"Standard deviation of top-1 (points) of {count(most, 'seed')}{few}, on {_conditions(board.table)}."
    )
    form = Form("scriptsize", True, _groups(pairs))
    return latex.table(header, rows, caption, f"tab:{suite}-std", form=form)


def _spread(board: Board, label: str, pair: str, most: int) -> str:
    entry = board.entries.loc[(label, pair)]
    if not entry["n"]:
        return NONE
    spread = NONE if pd.isna(entry["std"]) else f"{entry['std']:.2f}"
    return spread if entry["n"] == most else f"{spread} ({entry['n']})"


def _comparison(suite: str, board: Board, footer: Sequence[str]) -> str:
    """What the leaderboard says beside the accuracies, with all notes."""
    shown = [
        column for column in columns(board) if not column.pair and column.heading not in said_below(board)
    ]
    caption = f"Comparison with {board.baseline} on {_conditions(board.table)}."
    notes = [*words.legend(board.baseline, several_pairs=board.over_pairs()), *words.notes(board), *footer]
    return latex.table(_headings(shown), _texts(shown), caption, f"tab:{suite}-compared", notes)


def _whole(suite: str, board: Board, place: int) -> str:
    """A table of the appendix with all columns."""
    shown = [column for column in columns(board) if column.heading not in said_below(board)]
    caption = f"Top-1 (%), mean ± std (seeds), {board.table.heading}."
    return latex.table(_headings(shown), _texts(shown), caption, f"tab:{suite}-{place}", words.notes(board))


def _headings(shown: Sequence[Column]) -> list[str]:
    return [_stacked(column.heading) for column in shown]


def _texts(shown: Sequence[Column]) -> list[list[Tex]]:
    lines = zip(*(column.entries for column in shown), strict=True)
    return [[_marked(text) for text in line] for line in lines]


def _marked(text: Text) -> Tex:
    return Tex(text.marked(bold, escape))
