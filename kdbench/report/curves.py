"""Accuracy and loss by epoch: mean and std over the seeds of each method, one panel a pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from kdbench.report import style
from kdbench.report.frames import Table

TERMS = {"top1": "top-1 (%)", "loss": "training loss"}
KEYS = ["table", "pair", "label", "term", "epoch"]
ACROSS = 4


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
    width = 1.2 + 2.9 * max(across, 2)
    columns = max(1, int(width // (0.9 + 0.075 * max(map(len, looks)))))
    legend = 0.2 + 0.17 * -(-len(looks) // columns)
    heights = [0.35 + 4.0 * -(-n // across) for n in counts]
    figure, parts = style.canvas(width, [*heights, legend], footer)
    named: dict = {}
    for part, block in zip(parts, blocks, strict=False):
        named |= _block(part, block, looks, across)
    order = sorted(named)
    parts[-1].legend([named[k] for k in order], order, loc="center", ncols=columns, handlelength=4)
    return figure


def _block(part: SubFigure, block: pd.DataFrame, looks: dict, across: int) -> dict:
    """Draws one table; label -> a line for the legend."""
    pairs = list(block.groupby("pair"))
    down = -(-len(pairs) // across)
    grid = part.subplots(2 * down, across, squeeze=False, height_ratios=[3, 2] * down)
    part.suptitle(f"Mean ± std over seeds: {block['table'].iloc[0]}", fontsize=9)
    handles: dict = {}
    places = list(looks)
    for i, (pair, rows) in enumerate(pairs):
        for j, (term, name) in enumerate(TERMS.items()):
            ax = grid[2 * (i // across) + j, i % across]
            for label, line in rows[rows["term"] == term].groupby("label"):
                handles[label] = _line(ax, line, looks[label], places.index(label))
            ax.set_ylabel(name if i % across == 0 else "")
            ax.set_title(str(pair).replace("->", "→") if j == 0 else "")
            ax.set_xlabel("epoch" if j else "")
    for ax in grid.flat:
        ax.set_visible(bool(ax.lines))
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
