"""A board's numbers -> worded columns, which every form of the leaderboard (markdown, LaTeX, HTML, text) shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kdbench.report.leaderboard import Board, level
from kdbench.report.markdown import interval
from kdbench.report.metrics import Metric
from kdbench.report.notes import WEAK, weak_teachers
from kdbench.results.statistics.blocks import COLLAPSED, NOISY

NONE, DIVERGED, SKIPPED = "–", "✗", "n/a"
STATES = {COLLAPSED: " ↓", NOISY: " ~"}  # a run far below the others; a far larger spread than the others
SURVIVES = "§"  # a difference that is shown, all comparisons with the baseline counted
APART = "‡"  # the baseline was timed in another cohort
ALPHA = 0.05
COST_WORDS = {  # of `costs.COSTS`: the start of its heading, and what it says
    "step_cost": ("step", "Seconds of the method's own steps per epoch, in multiples of the baseline's"),
    "alone_cost": (
        "alone",
        "Seconds per epoch of training this method alone, teacher and batches included, in multiples of the baseline's",
    ),
}


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
    """A heading, one text for each method, and the pair that it is about, if it is about one.

    lower: whether the best is the lowest. about: what the column says, in one sentence.
    """

    heading: str
    entries: list[Text]
    pair: str = ""
    lower: bool = False
    about: str = ""


def columns(board: Board) -> list[Column]:
    """The table as texts: methods, pairs, then the summary over pairs."""
    names = Column("method", [Text(label) for label in board.labels], lower=True, about="Name of the method.")
    return [names, *pairs(board), *summary(board)]


def pairs(board: Board) -> list[Column]:
    """A column for each pair: the metric, its spread and the number of seeds."""
    weak = weak_teachers(board.table)
    about = f"{board.metric.title}: mean ± std (seeds) of the student {{}}."
    result = []
    for pair in board.table.pairs:
        entries = level(board.entries, "pair", pair).loc[board.labels].to_dict("records")
        texts = [_entry(entry, board.metric) for entry in entries]
        heading = pair + (WEAK if pair in weak else "")
        result.append(Column(heading, texts, pair, not board.metric.higher, about.format(pair)))
    return result


def summary(board: Board) -> list[Column]:
    """The columns over all pairs of the board."""
    return [column for column in _summary(board) if column.heading not in _unknown_costs(board)]


def cost_pairs(board: Board, name: str) -> list[Column]:
    """A column for each pair: one of `costs.COSTS`, in multiples of the baseline's."""
    about = f"{COST_WORDS[name][1]} on this pair."
    result = []
    for pair in board.table.pairs:
        entries = level(board.entries, "pair", pair).loc[board.labels]
        texts = [_cost(*each) for each in zip(entries[name], entries["cost_apart"], strict=True)]
        result.append(Column(pair, texts, pair, True, about))
    return result


def cost(board: Board, name: str) -> Column:
    """The column of one of `costs.COSTS` over all pairs of the board."""
    heading, about = COST_WORDS[name]
    texts = [_cost(*each) for each in zip(board.summary[name], board.summary["cost_apart"], strict=True)]
    return Column(f"{heading} x {board.baseline}", texts, lower=True, about=f"{about}: mean over pairs.")


def _unknown_costs(board: Board) -> list[str]:
    """The heading of the cost that no row has, where the rows are older than its columns."""
    return [] if board.summary["alone_cost"].notna().any() else [f"alone x {board.baseline}"]


def said_below(board: Board) -> set[str]:
    """Headings of the columns that say no more than the notes do: all pairs covered."""
    full = bool((board.summary["covered"] == len(board.table.pairs)).all())
    return {"coverage"} if full else set()


def _entry(entry: Mapping, metric: Metric) -> Text:
    if entry["n"] == 0:
        if entry["diverged"]:
            return Text(DIVERGED, -np.inf * metric.sign)
        return Text(SKIPPED if entry["skipped"] else NONE)
    spread = f" ± {entry['std']:{metric.form}}" if entry["n"] > 1 else ""
    failed = f" {DIVERGED}{entry['diverged']}" if entry["diverged"] else ""
    failed += STATES.get(entry["state"], "")
    text = f"{entry['mean']:{metric.form}}{spread} ({entry['n']})"
    return Text(text, entry["mean"], bool(entry["bold"]), failed)


def _summary(board: Board) -> list[Column]:
    base, total, lower = board.baseline, len(board.table.pairs), not board.metric.higher
    rows = board.summary.reset_index().to_dict("records")
    return [
        *_means(board, rows),
        Column(
            f"Δ vs {base} [95%]",
            [_delta(board, row) for row in rows],
            lower=lower,
            about=f"{board.metric.title} minus that of {base} on the same seeds, with its 95% interval.",
        ),
        *_alike(board, rows),
        *_over_pairs(board, rows),
        Column(
            "coverage",
            [Text(f"{row['covered']:.0f}/{total}", row["covered"]) for row in rows],
            about="Pairs with a result.",
        ),
        *(cost(board, name) for name in COST_WORDS),
    ]


def _means(board: Board, rows: list[dict]) -> list[Column]:
    """The mean over the common pairs; nothing for a single pair, whose column says it."""
    if not board.over_pairs() or not board.common:
        return []
    texts = [_number(row["mean"], board.metric.form) for row in rows]
    about = f"{board.metric.title}: mean over the pairs that all ranked methods share."
    return [Column(f"mean of {len(board.common)}", texts, lower=not board.metric.higher, about=about)]


def _over_pairs(board: Board, rows: list[dict]) -> list[Column]:
    """What says more than the one difference only where there are several pairs."""
    if not board.over_pairs():
        return []
    return [
        Column(
            "W-T-L",
            [_record(row["record"]) for row in rows],
            about=f"Pairs on which the method is better, not separable and worse than {board.baseline}.",
        ),
        Column(
            "rank",
            [_number(row["rank"], ".1f") for row in rows],
            lower=True,
            about="Mean over pairs of the method's place by the mean of its seeds; 1 is the best.",
        ),
    ]


def _cost(value: float, apart: bool) -> Text:
    text = _number(value, ".2f")
    return text._replace(after=APART) if apart and text.text != NONE else text


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
        return Text(DIVERGED, -np.inf * board.metric.sign) if compared and failed else Text(NONE)
    shown = SURVIVES if row["p_family"] < ALPHA else ""
    words = interval(row["delta"], row["low"], row["high"], board.metric.signed)
    return Text(words + shown, row["delta"])


def _alike(board: Board, rows: list[dict]) -> list[Column]:
    """What is to be expected on other pairs like these; nothing for a single pair."""
    if board.alike is None:
        return []
    limits = [Text(_limits(row["alike_low"], row["alike_high"], board.metric.signed)) for row in rows]
    return [
        Column(
            "pairs like these [95%]",
            limits,
            about="95% interval of the difference for another pair like these: the error from pair to pair.",
        ),
        Column(
            "p, pairs like these",
            [_p(row["alike_p"]) for row in rows],
            lower=True,
            about="p of that difference, adjusted for all methods that are compared with the baseline.",
        ),
    ]


def _limits(low: float, high: float, form: str) -> str:
    return NONE if np.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def _p(p: float) -> Text:
    return Text("<0.001", p) if p < 0.001 else _number(p, ".3f")


def _number(value: float, form: str) -> Text:
    return Text(NONE if np.isnan(value) else format(value, form), value)
