"""Accuracy and loss by epoch: mean and std over the seeds of each method, one panel per pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.report.tables import Table
from kdbench.utils.status import Status

TERMS = {"top1": "top-1 (%)", "loss": "training loss"}
KEYS = ["table", "pair", "label", "term", "epoch"]
COLUMNS = [*KEYS, "diverged", "mean", "std", "n"]
ACROSS = 3  # pairs in a row
HEIGHT, LOW = (
    3.1,
    2.6,
)  # inches of a pair, accuracy above loss, with their titles; and where there are several rows
NAMED = 9  # most lines of a panel that can be distinguished
PALE = "#D0D0D0"
EDGE = 0.2  # inches above and below all pairs
TITLE = 0.4  # inches of the name of a pair


def frame(table: Table, curves: pd.DataFrame) -> pd.DataFrame:
    """Curves of all cells -> those over seeds of the labels that `style.main` names."""
    return over_seeds(table, curves, style.main(table.labels))


def over_seeds(table: Table, curves: pd.DataFrame, labels: Collection[str]) -> pd.DataFrame:
    """Curves of all cells -> mean, std (ddof 1) and n over the seeds of finished runs, for every epoch.

    Where an epoch was trained twice (an interrupted run, taken up again) its last value counts. Each diverged run is a
    line of its own: ``diverged`` is its seed, and empty for the others.
    """
    curves = curves[curves["term"].isin(list(TERMS)) & np.isfinite(curves["value"].astype(float))]
    curves = curves.drop_duplicates(["cell_id", "term", "epoch"], keep="last")
    runs = table.rows[table.rows["status"].isin([Status.OK, Status.DIVERGED])]
    seeds = runs["seed"].astype(int).astype(str)
    runs = runs.assign(table=table.heading, diverged=seeds.where(runs["status"] == Status.DIVERGED, ""))
    runs = runs[runs["label"].isin(labels)][["cell_id", "pair", "label", "table", "diverged"]]
    merged = runs.merge(curves, on="cell_id")
    result = (
        merged.groupby([*KEYS, "diverged"], sort=True)["value"].agg(["mean", "std", "count"]).reset_index()
    )
    return result.rename(columns={"count": "n"})[COLUMNS]


def named(data: pd.DataFrame, baseline: str) -> list[str]:
    """The labels of one table that are drawn as lines of their own, sorted: all, or the baseline and the best.

    The best: by mean rank, within pairs, of the last accuracy; a label must be in half of the pairs.
    """
    labels = sorted(data["label"].unique())
    if len(labels) <= NAMED:
        return labels
    last = (
        data[(data["term"] == "top1") & (data["diverged"] == "")]
        .sort_values("epoch")
        .groupby(["pair", "label"])["mean"]
        .last()
        .unstack("label")
    )
    ranks = last.rank(axis=1, ascending=False).loc[:, last.notna().mean() >= 0.5].mean()
    best = ranks.drop(baseline, errors="ignore").sort_values(kind="stable").index[: NAMED - 1]
    return sorted({*best, baseline} & set(labels))


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """Draw accuracy above loss for as many pairs as fit, with one legend.

    The lines of methods that are not among the `named` are grey.
    """
    pairs = [(str(pair), rows) for pair, rows in data.groupby("pair")]
    looks = style.lines(named(data, baseline))
    others = len(set(data["label"]) - set(looks))
    across = min(len(pairs), ACROSS)
    width = sheet.wide if len(pairs) > 1 else sheet.panel
    columns = max(1, int(width // (0.9 + 0.075 * max(map(len, looks)))))
    legend = 0.3 + 0.17 * -(-(len(looks) + bool(others)) // columns)
    reading = "Bands: std over seeds. A loss is the sum of a method's own terms: its level is not another's."
    if (data["diverged"] != "").any():
        reading += " Thin, with a cross at its end: a run that diverged, up to its last finite value."
    if others:
        reading += f" Named: {baseline} and the best by the last epoch's accuracy; grey: the others."
    height = HEIGHT if len(pairs) <= across else LOW
    canvas = Canvas(
        sheet,
        width,
        f"Mean ± std over seeds: {data['table'].iloc[0]}",
        [reading],
        [pair for pair, _ in pairs],
    )
    top = canvas.top(TITLE)
    rows = -(-len(pairs) // across)
    space = canvas.room_for(height * rows + EDGE + legend)
    down = min(rows, max(1, int((space - EDGE - legend) / height)))
    shown = pairs[: across * down]
    said = left_out(len(shown), len(pairs), "pairs")
    figure, parts = canvas.draw([EDGE - TITLE + top + height * down, legend], said)
    _pairs(parts[0], shown, (down, across), looks, height, top)
    handles = [Line2D([], [], linewidth=1.1, markersize=3, **look) for look in looks.values()]
    rest = [Line2D([], [], linewidth=0.6, color=PALE)] if others else []
    texts = [*looks, *([f"{others} others"] if others else [])]
    parts[-1].legend([*handles, *rest], texts, loc="center", ncols=columns, handlelength=4)
    return figure


def _pairs(
    part: SubFigure,
    pairs: Sequence[tuple[str, pd.DataFrame]],
    shape: tuple[int, int],
    looks: dict[str, dict[str, Any]],
    height: float,
    top: float,
) -> None:
    """top: inches above the first row, of which names of pairs take most where there are any."""
    down, across = shape
    for row in range(down):
        box = (0.6, 0.15, top + height * row, 0.4 + height * (down - 1 - row))
        grid = style.grid(part, (2, across), box, 0.2, height_ratios=[3, 2], sharex="col")
        for i in range(across):
            if across * row + i < len(pairs):
                pair, rows = pairs[across * row + i]
                _pair(grid[:, i], pair if top == TITLE else "", rows, looks)
            else:
                grid[0, i].set_visible(False)
                grid[1, i].set_visible(False)
        for ax, name in zip(grid[:, 0], TERMS.values(), strict=True):
            ax.set_ylabel(name)
        for ax in grid[-1] if row + 1 == down else []:
            ax.set_xlabel("epoch")


def _pair(axes: np.ndarray, pair: str, rows: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    """Draws one pair, a term on each of the axes."""
    for ax, term in zip(axes, TERMS, strict=True):
        own = rows[rows["term"] == term]
        lines = {str(label): line for label, line in own[own["diverged"] == ""].groupby("label")}
        pale = [
            line[["epoch", "mean"]].to_numpy(float) for label, line in lines.items() if label not in looks
        ]
        for (label, _), line in own[own["diverged"] != ""].groupby(["label", "diverged"]):
            _diverged(ax, line, looks.get(str(label), {"color": PALE, "linestyle": "-"}))
        ax.add_collection(LineCollection(pale, colors=PALE, linewidths=0.6, zorder=1))
        for place, (label, look) in enumerate(looks.items()):
            if label in lines:
                _line(ax, lines[label], look, place)
        if term == "loss" and len(lines) and own["mean"].min() > 0:
            ax.set_yscale("log")
            narrow = own["mean"].max() < 3 * own["mean"].min()
            ax.yaxis.set_major_locator(MaxNLocator(3) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_locator(NullLocator())
        ax.autoscale_view()
    axes[0].set_title(style.title(pair, 28))
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _diverged(ax: Axes, line: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """One diverged run up to its last finite value, where a cross stands."""
    drawn = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 0.7, "alpha": 0.8}
    ax.plot(line["epoch"], line["mean"], **drawn)
    ax.plot(line["epoch"].iloc[-1:], line["mean"].iloc[-1:], "x", color=look["color"], markersize=5)


def _line(ax: Axes, line: pd.DataFrame, look: dict[str, Any], place: int) -> None:
    every = max(1, len(line) // 6)
    spread = line["std"].fillna(0.0)
    if np.any(spread > 0):
        low, high = line["mean"] - spread, line["mean"] + spread
        ax.fill_between(line["epoch"], low, high, color=look["color"], alpha=0.12, linewidth=0)
    (drawn,) = ax.plot(line["epoch"], line["mean"], linewidth=1.1, markersize=3, **look)
    drawn.set_markevery((place % every, every))  # staggered: marks of near lines do not cover each other
