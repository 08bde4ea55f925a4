"""Boards -> markdown, CSV and the text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kdbench.report import order, reproducibility
from kdbench.report.columns import columns, said_below
from kdbench.report.figures.files import Picture, in_markdown
from kdbench.report.leaderboard import Board
from kdbench.report.markdown import escape, pipes
from kdbench.report.notes import legend, notes
from kdbench.utils.text import fold, wrap

ENTRY = [
    "mean",
    "std",
    "n",
    "bold",
    "diverged",
    "skipped",
    "delta",
    "low",
    "high",
    "p_family",
    "error",
    "state",
    "step_cost",
    "alone_cost",
]  # what the CSV gives of an entry
SHOWN = ("forest", "cost", "curves")  # figures of the main table that leaderboard.md shows
Texts = Sequence[str]  # a heading and one text per method


def markdown(
    suite: str, boards: Sequence[Board], footer: Texts, runs: pd.DataFrame, shown: Sequence[Picture] = ()
) -> str:
    """leaderboard.md: the main table, its notes, how to read it, its figures; an appendix of the others; provenance.

    runs: the frame of `reproducibility`; its section is there only where a cell was trained more than once. shown:
    the figures in its folder; the main table's that are named in SHOWN are shown, the others named.
    """
    first, *others = boards
    parts = [f"# {suite}: leaderboard", *_section(first, "##")]
    parts += ["## How to read it", _bullets(legend(first.baseline))]
    if len(runs):
        parts += ["## Reproducibility", escape(reproducibility.sentence(runs))]
    if runs["differs"].any():
        parts.append(pipes(reproducibility.HEADER, reproducibility.differing(runs)))
    own = [picture for picture in shown if picture.table == 0]
    parts += in_markdown(picture for picture in own if picture.name in SHOWN)
    parts += _named("Further figures", [picture for picture in own if picture.name not in SHOWN])
    parts += [f"## {order.APPENDIX}"] if others else []
    for i, board in enumerate(others, 1):
        parts += _section(board, "###")
        parts += _named("Figures", [picture for picture in shown if picture.table == i])
    return "\n\n".join([*parts, "---", *footer]) + "\n"


def _section(board: Board, mark: str) -> list[str]:
    """Heading, table and notes."""
    said = said_below(board)
    table = [column for column in columns(board) if column.heading not in said]
    rows = zip(
        *([entry.marked("**{}**".format) for entry in column.entries] for column in table), strict=True
    )
    return [f"{mark} {board.table.heading}", pipes([c.heading for c in table], rows), _bullets(notes(board))]


def _named(title: str, shown: Sequence[Picture]) -> list[str]:
    """The files of figures and what they show; no links, for a copy of the page may be without them."""
    lines = [f"- `{'`, `'.join(picture.files)}`: {escape(picture.text)}" for picture in shown]
    return [f"{title}, which `kdbench report` writes into this folder:", "\n".join(lines)] if lines else []


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def text(suite: str, boards: Sequence[Board], footer: Texts, whole: bool = False, width: int = 80) -> str:
    """Render the leaderboard as text with lines of at most ``width``; wide tables continue below.

    The main table alone, with a line for each of the others; ``whole``: all of them in full.
    """
    full, named = (boards, ()) if whole else (boards[:1], boards[1:])
    parts = [f"{suite}: leaderboard", *(part for board in full for part in _plain(board, width))]
    parts.append("\n".join(fold(line, width) for line in legend(boards[0].baseline)))
    if named:
        lines = [f"{order.APPENDIX}, in leaderboard.md"]
        lines += [f"  {board.table.heading}: {order.size(board.table)}" for board in named]
        parts.append("\n".join(fold(line, width, 4) for line in lines))
    return "\n\n".join([*parts, *(fold(line, width) for line in footer)]) + "\n"


def _plain(board: Board, width: int) -> list[str]:
    """Heading, table and notes, as lines of at most ``width``."""
    said = said_below(board)
    shown = [column for column in columns(board) if column.heading not in said]
    table = [[c.heading, *(entry.marked("{}*".format) for entry in c.entries)] for c in shown]
    heading = fold(board.table.heading, width)
    below = "\n".join(fold(line, width) for line in notes(board))
    return [heading + "\n" + "-" * min(len(heading), width), *_blocks(table, width), below]


def _blocks(table: Sequence[Texts], width: int) -> list[str]:
    """Columns side by side while they fit; the first one, the methods, begins every block."""
    first, *rest = [_fold(column, 28 if i == 0 else 26) for i, column in enumerate(table)]
    blocks = [[first]]
    for column in rest:
        if sum(_size(c) + 2 for c in blocks[-1]) + _size(column) > width:
            blocks.append([first])
        blocks[-1].append(column)
    return [_grid(block) for block in blocks]


Folded = list[list[str]]  # heading, then one entry per method, each as lines


def _fold(column: Texts, most: int) -> Folded:
    heading = column[0]
    entries = [wrap(entry, most) or [""] for entry in column[1:]]
    words = (min(len(word), 40) for word in heading.split())
    size = max(*words, *(len(line) for lines in entries for line in lines))
    return [wrap(heading, size, 0), *entries]


def _size(column: Folded) -> int:
    return max(len(line) for lines in column for line in lines)


def _grid(block: Sequence[Folded]) -> str:
    sizes = [_size(column) for column in block]
    lines = []
    for row in zip(*block, strict=True):
        for i in range(max(map(len, row))):
            texts = [entry[i] if i < len(entry) else "" for entry in row]
            first, *rest = zip(texts, sizes, strict=True)
            entries = [first[0].ljust(first[1]), *(text.rjust(size) for text, size in rest)]
            lines.append("  ".join(entries).rstrip())
    return "\n".join(lines)


def csv(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """leaderboard.csv: one line per table and method, full digits; the provenance in the last column."""
    frames: list[pd.DataFrame] = []
    for board in boards:
        frame = board.summary.copy()
        record = [r if isinstance(r, tuple) else (None,) * 3 for r in frame.pop("record")]
        frame[["wins", "ties", "losses"]] = pd.DataFrame(record, index=frame.index, dtype="Int64")
        frame["delta_n"] = frame["delta_n"].astype("Int64")
        frame["detectable"], frame["detectable_over"] = board.power.detectable, board.power.unit
        frame["pairs_total"], frame["pairs_common"] = len(board.table.pairs), len(board.common)
        places = [(name, pair) for pair in board.table.pairs for name in ENTRY]
        entries = pd.DataFrame(board.entries[ENTRY].unstack("pair"))[places]
        entries.columns = pd.Index([f"{pair}: {name}" for name, pair in places])
        t, frame = board.table, frame.join(entries).reset_index()
        keys = {
            "suite": suite,
            "table": "appendix" if frames else "main",
            "dataset": t.dataset,
            "split": t.split,
            "recipe_id": t.recipe_id,
        }
        keys |= {"epochs": t.epochs, "rule": f"top-1 on {t.split}, last epoch", "baseline": board.baseline}
        frames.append(pd.concat([pd.DataFrame(keys, index=frame.index), frame], axis=1))
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(provenance=" ".join(footer)).to_csv(index=False, lineterminator="\n")
