"""Boards -> markdown, CSV and the text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from kdbench import stats
from kdbench.report import repeats
from kdbench.report.board import Board
from kdbench.report.columns import columns, said_below
from kdbench.report.notes import legend, notes
from kdbench.report.pipes import escape, pipes

CELL = [
    "mean",
    "std",
    "n",
    "bold",
    "diverged",
    "skipped",
    "delta",
    "low",
    "high",
]  # what the CSV gives of a cell
SHOWN = ("forest", "curves")
Texts = Sequence[str]  # a heading and one text a method


def markdown(
    suite: str,
    boards: Sequence[Board],
    footer: Texts,
    runs: pd.DataFrame,
    captions: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """leaderboard.md: for each board a heading, a table and its notes; then figures and provenance.

    runs: the frame of `repeats`; its section is there only where a cell was trained more than once. captions: of the
    figures beside it, by name; those in SHOWN are shown, the others linked.
    """
    parts = [f"# {suite}: leaderboard"]
    for board in boards:
        table = columns(board)
        rows = zip(
            *([cell.marked("**{}**".format) for cell in column.cells] for column in table), strict=True
        )
        parts += [
            f"## {board.table.heading}",
            pipes([c.heading for c in table], rows),
            _bullets(notes(board)),
        ]
    parts += ["## How to read it", _bullets(legend(boards[0].baseline))]
    if len(runs):
        parts += ["## Reproducibility", escape(repeats.sentence(runs))]
    if runs["differs"].any():
        parts.append(pipes(repeats.HEADER, repeats.differing(runs)))
    parts += [f"![{captions[name]}]({name}.png)" for name in SHOWN if name in captions]
    more = [f"[{text}]({name}.png)" for name, text in captions.items() if name not in SHOWN]
    parts += ["Further figures:", "\n".join(f"- {link}" for link in more)] if more else []
    return "\n\n".join([*parts, "---", *footer]) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def text(suite: str, boards: Sequence[Board], footer: Texts, width: int = 80) -> str:
    """The same for a terminal or a log file: no line is wider than ``width``; wide tables continue below."""
    parts = [f"{suite}: leaderboard"]
    for board in boards:
        said = said_below(board)
        shown = [column for column in columns(board) if column.heading not in said]
        table = [[c.heading, *(cell.marked("{}*".format) for cell in c.cells)] for c in shown]
        heading = _wrap(board.table.heading, width)
        parts += [heading + "\n" + "-" * min(len(heading), width), *_blocks(table, width)]
        parts.append("\n".join(_wrap(line, width) for line in notes(board)))
    parts.append("\n".join(_wrap(line, width) for line in legend(boards[0].baseline)))
    return "\n\n".join([*parts, *(_wrap(line, width) for line in footer)]) + "\n"


def _wrap(line: str, width: int) -> str:
    return textwrap.fill(line, width, subsequent_indent="  ")


def _blocks(table: Sequence[Texts], width: int) -> list[str]:
    """Columns side by side while they fit; the first one, the methods, begins every block."""
    first, *rest = [_fold(column, 28 if i == 0 else 26) for i, column in enumerate(table)]
    blocks = [[first]]
    for column in rest:
        if sum(_size(c) + 2 for c in blocks[-1]) + _size(column) > width:
            blocks.append([first])
        blocks[-1].append(column)
    return [_grid(block) for block in blocks]


Folded = list[list[str]]  # heading, then one cell a method, each as lines


def _fold(column: Texts, most: int) -> Folded:
    heading = column[0]
    cells = [textwrap.wrap(cell, most, subsequent_indent="  ") or [""] for cell in column[1:]]
    words = (min(len(word), 40) for word in heading.split())
    size = max(*words, *(len(line) for lines in cells for line in lines))
    return [textwrap.wrap(heading, size), *cells]


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
        order = [(name, pair) for pair in board.table.pairs for name in CELL]
        cells = pd.DataFrame(board.cells[CELL].unstack("pair"))[order]
        cells.columns = pd.Index([f"{pair}: {name}" for name, pair in order])
        t, frame = board.table, frame.join(cells).reset_index()
        keys = {"suite": suite, "dataset": t.dataset, "split": t.split, "recipe_id": t.recipe_id}
        keys |= {"epochs": t.epochs, "rule": f"top-1 on {t.split}, last epoch", "baseline": board.baseline}
        frames.append(pd.concat([pd.DataFrame(keys, index=frame.index), frame], axis=1))
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(provenance=" ".join(footer)).to_csv(index=False, lineterminator="\n")
