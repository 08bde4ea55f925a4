"""A board's numbers -> worded columns, which every form of the leaderboard (markdown, LaTeX, HTML, text) shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kdbench.report.leaderboard import Board, level
from kdbench.report.notes import WEAK, weak_teachers
from kdbench.results.statistics.blocks import COLLAPSED, NOISY

NONE, DIVERGED, SKIPPED = "–", "✗", "n/a"
STATES = {COLLAPSED: " ↓", NOISY: " ~"}  # a run far below the others; a far larger spread than the others
SURVIVES = "§"  # a difference that is shown, all comparisons with the baseline counted
APART = "‡"  # the baseline was timed in another cohort
ALPHA = 0.05


class Text(NamedTuple):
    """One entry: what it says, the number that it is sorted by (NaN: none), and what is bold and what follows it."""

    text: str
    value: float = np.nan
    bold: bool = False
    after: str = ""

    def marked(self, bold: Callable[[str], str], plain: Callable[[str], str] = str) -> str:
        """All of it, the bold part marked by ``bold`` and the rest by ``plain``."""
        return (bold if self.bold else plain)(self.text) + plain(self.after)


class Column(NamedTuple):
    """A heading, one text for each method, and the pair that it is about, if it is about one."""

    heading: str
    entries: list[Text]
    pair: str = ""


def columns(board: Board) -> list[Column]:
    """The table as texts: methods, pairs, then the summary over pairs."""
    weak = weak_teachers(board.table)
    labels = board.labels
    pairs = []
    for pair in board.table.pairs:
        entries = level(board.entries, "pair", pair).loc[labels].to_dict("records")
        pairs.append(
            Column(pair + (WEAK if pair in weak else ""), [_entry(entry) for entry in entries], pair)
        )
    summary = [column for column in _summary(board) if column.heading not in _unknown_costs(board)]
    return [Column("method", [Text(label) for label in labels]), *pairs, *summary]


def _unknown_costs(board: Board) -> list[str]:
    """The heading of the cost that no row has, where the rows are older than its columns."""
    return [] if board.summary["alone_cost"].notna().any() else [f"alone x {board.baseline}"]


def said_below(board: Board) -> set[str]:
    """Headings of the columns that say no more than the notes do: all pairs covered."""
    full = bool((board.summary["covered"] == len(board.table.pairs)).all())
    return {"coverage"} if full else set()


def _entry(entry: Mapping) -> Text:
    if entry["n"] == 0:
        if entry["diverged"]:
            return Text(DIVERGED, -np.inf)
        return Text(SKIPPED if entry["skipped"] else NONE)
    spread = f" ± {entry['std']:.2f}" if entry["n"] > 1 else ""
    failed = f" {DIVERGED}{entry['diverged']}" if entry["diverged"] else ""
    failed += STATES.get(entry["state"], "")
    return Text(f"{entry['mean']:.2f}{spread} ({entry['n']})", entry["mean"], bool(entry["bold"]), failed)


def _summary(board: Board) -> list[Column]:
    base, total = board.baseline, len(board.table.pairs)
    rows = board.summary.reset_index().to_dict("records")
    return [
        Column(f"Δ vs {base} [95%]", [_delta(board, row) for row in rows]),
        *_alike(board, rows),
        *_over_pairs(board, rows),
        Column("coverage", [Text(f"{row['covered']:.0f}/{total}", row["covered"]) for row in rows]),
        Column(f"step x {base}", [_cost(row, "step_cost") for row in rows]),
        Column(f"alone x {base}", [_cost(row, "alone_cost") for row in rows]),
    ]


def _over_pairs(board: Board, rows: list[dict]) -> list[Column]:
    """What says more than the one difference only where there are several pairs."""
    if not board.over_pairs():
        return []
    return [
        Column("W-T-L", [_record(row["record"]) for row in rows]),
        Column("rank", [_number(row["rank"], ".1f") for row in rows]),
    ]


def _cost(row: Mapping, key: str) -> Text:
    cost = _number(row[key], ".2f")
    return cost._replace(after=APART) if row["cost_apart"] and cost.text != NONE else cost


def _record(record) -> Text:
    if not isinstance(record, tuple):
        return Text(NONE)
    return Text("-".join(map(str, record)), record[0] - record[2])


def _delta(board: Board, row: Mapping) -> Text:
    if row["label"] == board.baseline:
        return Text("baseline", 0.0) if board.has_baseline else Text(NONE)
    if np.isnan(row["delta"]):
        compared = board.has_baseline and not np.isnan(row["rank"])
        failed = level(board.entries, "label", row["label"])["diverged"].any()
        return Text(DIVERGED, -np.inf) if compared and failed else Text(NONE)
    shown = SURVIVES if row["p_family"] < ALPHA else ""
    return Text(f"{row['delta']:+.2f}{_interval(row['low'], row['high'])}{shown}", row["delta"])


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"


def _alike(board: Board, rows: list[dict]) -> list[Column]:
    """What is to be expected on other pairs like these; nothing for a single pair."""
    if board.alike is None:
        return []
    limits = [Text(_interval(row["alike_low"], row["alike_high"]).strip() or NONE) for row in rows]
    return [
        Column("pairs like these [95%]", limits),
        Column("p, pairs like these", [_p(row["alike_p"]) for row in rows]),
    ]


def _p(p: float) -> Text:
    return Text("<0.001", p) if p < 0.001 else _number(p, ".3f")


def _number(value: float, form: str) -> Text:
    return Text(NONE if np.isnan(value) else format(value, form), value)
