"""Boards -> markdown, CSV and the text for a terminal: the wording of cells. The numbers are `board`'s."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdbench import stats
from kdbench.report.board import Board, level
from kdbench.report.notes import WEAK, legend, notes, weak_teachers

NONE, DIVERGED, SKIPPED = "–", "✗", "n/a"


class Column(NamedTuple):
    """A heading and one text for each method."""

    heading: str
    cells: list[str]


def columns(board: Board, bold: Callable[[str], str]) -> list[Column]:
    """The table as texts: methods, pairs, then what is said over pairs. ``bold`` marks a text as bold."""
    weak = weak_teachers(board.table)
    labels = board.labels
    pairs = []
    for pair in board.table.pairs:
        cells = level(board.cells, "pair", pair).loc[labels].to_dict("records")
        texts = [_cell(cell, bold) for cell in cells]
        pairs.append(Column(pair + (WEAK if pair in weak else ""), texts))
    return [Column("method", labels), *pairs, *_summary(board)]


def _cell(cell: Mapping, bold: Callable[[str], str]) -> str:
    if cell["n"] == 0:
        return DIVERGED if cell["diverged"] else SKIPPED if cell["skipped"] else NONE
    spread = f" ± {cell['std']:.2f}" if cell["n"] > 1 else ""
    text = f"{cell['mean']:.2f}{spread} ({cell['n']})"
    failed = f" {DIVERGED}{cell['diverged']}" if cell["diverged"] else ""
    return (bold(text) if cell["bold"] else text) + failed


def _summary(board: Board) -> list[Column]:
    base, total = board.baseline, len(board.table.pairs)
    rows = board.summary.reset_index().to_dict("records")
    return [
        Column(f"Δ vs {base} [95%]", [_delta(board, row) for row in rows]),
        Column("p (Holm)", [_p(board, row) for row in rows]),
        Column("W-T-L", [_record(row["record"]) for row in rows]),
        Column("rank", [_number(row["rank"], ".1f") for row in rows]),
        Column("coverage", [f"{row['covered']:.0f}/{total}" for row in rows]),
        Column(f"cost x {base}", [_number(row["cost"], ".2f") for row in rows]),
        Column("detects", [_number(row["detectable"], ".2f") for row in rows]),
    ]


def _record(record) -> str:
    return "-".join(map(str, record)) if isinstance(record, tuple) else NONE


def _delta(board: Board, row: Mapping) -> str:
    if row["label"] == board.baseline:
        return "baseline" if board.has_baseline else NONE
    if np.isnan(row["delta"]):
        compared = board.has_baseline and not np.isnan(row["rank"])
        failed = level(board.cells, "label", row["label"]).loc[board.common, "diverged"].any()
        return DIVERGED if compared and failed else NONE
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['delta']:+.2f}{interval}"


def _p(board: Board, row: Mapping) -> str:
    if np.isnan(row["delta"]):
        return NONE
    if len(board.common) < stats.MIN_PAIRS:
        return stats.TOO_FEW
    return "<0.001" if row["p"] < 0.001 else _number(row["p"], ".3f")


def _number(value: float, form: str) -> str:
    return NONE if np.isnan(value) else format(value, form)


def markdown(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """leaderboard.md: for each board a heading, a table and its notes; then figures and provenance."""
    parts = [f"# {suite}: leaderboard"]
    for board in boards:
        table = columns(board, "**{}**".format)
        lines = ["| " + " | ".join(_escape(c.heading) for c in table) + " |"]
        lines.append("|" + "|".join(["---"] + ["---:"] * (len(table) - 1)) + "|")
        for texts in zip(*(c.cells for c in table), strict=True):
            lines.append("| " + " | ".join(map(_escape, texts)) + " |")
        parts += [f"## {board.table.heading}", "\n".join(lines), _bullets(notes(board))]
    parts += ["## How to read it", _bullets(legend(boards[0].baseline))]
    parts.append("![paired differences](forest.png)\n\n![accuracy and loss by epoch](curves.png)")
    return "\n\n".join([*parts, "---", *footer]) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("->", "→")


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_escape(line)}" for line in lines)


def text(suite: str, boards: Sequence[Board], footer: Sequence[str], width: int = 80) -> str:
    """The same for a terminal or a log file: no line is wider than ``width``; wide tables continue below."""
    parts = [f"{suite}: leaderboard"]
    for board in boards:
        table = columns(board, "{}*".format)
        full = (board.summary["covered"] == len(board.table.pairs)).all()
        said = {"p (Holm)": len(board.common) < stats.MIN_PAIRS, "coverage": bool(full)}  # by the notes
        table = [column for column in table if not said.get(column.heading)]
        heading = _wrap(board.table.heading, width)
        parts += [heading + "\n" + "-" * min(len(heading), width), *_blocks(table, width)]
        parts.append("\n".join(_wrap(line, width) for line in notes(board)))
    parts.append("\n".join(_wrap(line, width) for line in legend(boards[0].baseline)))
    return "\n\n".join([*parts, *(_wrap(line, width) for line in footer)]) + "\n"


def _wrap(line: str, width: int) -> str:
    return textwrap.fill(line, width, subsequent_indent="  ")


def _blocks(table: Sequence[Column], width: int) -> list[str]:
    """Columns side by side while they fit; the first one, the methods, begins every block."""
    first, *rest = [_fold(column, 28 if i == 0 else 26) for i, column in enumerate(table)]
    blocks = [[first]]
    for column in rest:
        if sum(_size(c) + 2 for c in blocks[-1]) + _size(column) > width:
            blocks.append([first])
        blocks[-1].append(column)
    return [_grid(block) for block in blocks]


Folded = list[list[str]]  # heading, then one cell a method, each as lines


def _fold(column: Column, most: int) -> Folded:
    cells = [textwrap.wrap(cell, most, subsequent_indent="  ") or [""] for cell in column.cells]
    words = (min(len(word), 40) for word in column.heading.split())
    size = max(*words, *(len(line) for lines in cells for line in lines))
    return [textwrap.wrap(column.heading, size), *cells]


def _size(column: Folded) -> int:
    return max(len(line) for lines in column for line in lines)


def _grid(block: Sequence[Folded]) -> str:
    sizes = [_size(column) for column in block]
    lines = []
    for row in zip(*block, strict=True):
        for i in range(max(map(len, row))):
            texts = [cell[i] if i < len(cell) else "" for cell in row]
            first, *rest = zip(texts, sizes, strict=True)
            cells = [first[0].ljust(first[1]), *(text.rjust(size) for text, size in rest)]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def csv(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """leaderboard.csv: one line a table and method, full digits; the provenance in the last column."""
    frames = []
    for board in boards:
        frame = board.summary.copy()
        record = [r if isinstance(r, tuple) else (None,) * 3 for r in frame.pop("record")]
        frame[["wins", "ties", "losses"]] = pd.DataFrame(record, index=frame.index, dtype="Int64")
        frame["delta_n"] = frame["delta_n"].astype("Int64")
        frame["p_note"] = stats.TOO_FEW if len(board.common) < stats.MIN_PAIRS else ""
        frame["pairs_total"], frame["pairs_common"] = len(board.table.pairs), len(board.common)
        for pair in board.table.pairs:
            cells = level(board.cells, "pair", pair)
            for name in ["mean", "std", "n", "bold", "diverged", "skipped", "delta", "low", "high"]:
                frame[f"{pair}: {name}"] = cells[name]
        t, frame = board.table, frame.reset_index()
        keys = {"suite": suite, "dataset": t.dataset, "split": t.split, "recipe_id": t.recipe_id}
        keys |= {"epochs": t.epochs, "rule": f"top-1 on {t.split}, last epoch", "baseline": board.baseline}
        frames.append(pd.concat([pd.DataFrame(keys, index=frame.index), frame], axis=1))
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(provenance=" ".join(footer)).to_csv(index=False, lineterminator="\n")
