"""Accuracy and loss by epoch: mean and std over the seeds of each method, one panel a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdbench.report import style
from kdbench.report.frames import Table

TERMS = {"top1": "top-1 (%)", "loss": "training loss"}
KEYS = ["table", "pair", "label", "term", "epoch"]
ACROSS = 4  # pairs in a row
ROW = 4.0  # inches: accuracy above loss, with their titles


def frame(tables: Sequence[Table], curves: pd.DataFrame) -> pd.DataFrame:
    """Curves of all cells -> mean, std (ddof 1) and n over the seeds of finished runs, for every epoch.

    Where an epoch was trained twice (an interrupted run, taken up again) its last value counts.
    """
    curves = curves[curves["term"].isin(list(TERMS))]
    curves = curves.drop_duplicates(["cell_id", "term", "epoch"], keep="last")
    runs = [t.finished[["cell_id", "pair", "label"]].assign(table=t.heading) for t in tables]
    merged = pd.concat(runs).merge(curves, on="cell_id")
    result = merged.groupby(KEYS, sort=True)["value"].agg(["mean", "std", "count"]).reset_index()
    order = {table.heading: i for i, table in enumerate(tables)}
    return result.rename(columns={"count": "n"}).sort_values(
        KEYS, kind="stable", key=lambda c: c.map(order) if c.name == "table" else c
    )


def draw(data: pd.DataFrame, footer: Sequence[str]) -> Figure:
    """One block a table; for each pair accuracy above loss; one legend for all."""
    if not len(data):
        figure, (part,) = style.canvas(8, [1.0], footer)
        part.text(0.5, 0.5, "no curves recorded", ha="center")
        return figure
    looks = style.lines(data["label"].unique())
    blocks = [block for _, block in data.groupby("table", sort=False)]
    counts = [block["pair"].nunique() for block in blocks]
    across = min(max(counts), ACROSS)
    width = max(1.2 + 2.9 * across, 7.0)
    columns = max(1, int(width // (0.9 + 0.075 * max(map(len, looks)))))
    legend = 0.3 + 0.17 * -(-len(looks) // columns)
    heights = [0.3 + ROW * -(-n // across) for n in counts]
    figure, parts = style.canvas(width, [*heights, legend], footer)
    named: dict = {}
    for part, block in zip(parts, blocks, strict=False):
        named |= _block(part, block, looks, across)
    order = sorted(named)
    parts[-1].legend([named[k] for k in order], order, loc="center", ncols=columns, handlelength=4)
    return figure


def _block(part: SubFigure, block: pd.DataFrame, looks: dict, across: int) -> dict:
    """Draws one table; label -> a line for the legend."""
    style.heading(part, f"Mean ± std over seeds: {block['table'].iloc[0]}")
    pairs = [(str(pair), rows) for pair, rows in block.groupby("pair")]
    down = -(-len(pairs) // across)
    handles: dict = {}
    for row in range(down):
        box = (0.6, 0.15, 0.7 + ROW * row, 0.4 + ROW * (down - 1 - row))
        grid = style.grid(part, (2, across), box, 0.3, height_ratios=[3, 2], sharex="col")
        for i in range(across):
            if across * row + i < len(pairs):
                handles |= _pair(grid[:, i], *pairs[across * row + i], looks)
            else:
                grid[0, i].set_visible(False)
                grid[1, i].set_visible(False)
        for ax, name in zip(grid[:, 0], TERMS.values(), strict=True):
            ax.set_ylabel(name)
    return handles


def _pair(axes: np.ndarray, pair: str, rows: pd.DataFrame, looks: dict) -> dict:
    """Draws one pair, a term on each of the axes."""
    handles = {}
    for ax, term in zip(axes, TERMS, strict=True):
        for label, line in rows[rows["term"] == term].groupby("label"):
            handles[label] = _line(ax, line, looks[label], list(looks).index(label))
    axes[0].set_title(style.title(pair))
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return handles


def _line(ax: Axes, line: pd.DataFrame, look: dict, place: int) -> Line2D:
    every = max(1, len(line) // 6)
    spread = line["std"].fillna(0.0)
    if np.any(spread > 0):
        low, high = line["mean"] - spread, line["mean"] + spread
        ax.fill_between(line["epoch"], low, high, color=look["color"], alpha=0.12, linewidth=0)
    (drawn,) = ax.plot(line["epoch"], line["mean"], linewidth=1.1, markersize=3, **look)
    drawn.set_markevery((place % every, every))  # staggered: marks of near lines do not cover each other
    return drawn
