"""Ours against published: one panel per pair, one point per method, the diagonal where both agree."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out

COLUMNS = [
    "table",
    "pair",
    "label",
    "published",
    "low",
    "high",
    "ours",
    "se",
    "n",
    "rule",
    "verdict",
]
ACROSS = 2  # panels in a row
LEAST = 2.3  # inches: a panel's axes are at least so high
LEFT, LABELS = 0.6, 1.1  # inches: beside a panel
LINE = 0.15  # inches from label to label at most
READING = (
    "On the diagonal ours is as published (by the same rule: last epoch, or best evaluated epoch where a best one is "
    "published). Vertical bar: one standard error of the difference. Horizontal bar: published numbers that contradict "
    "each other."
)


def frame(data: pd.DataFrame) -> pd.DataFrame:
    """The points: published (the nearest number), low and high of all, ours by its rule, se of the difference.

    data: see `reproduction.frame`. Empty where no published number has a finished run of ours that is comparable.
    """
    shown = (
        (data["n"] > 0)
        & data["comparable"].astype(bool)
        & data["compared"].notna()
        & (data["metric"] == "top1")
        & (data["method"] != "teacher")
    )
    points = data[shown]
    nearest = (points["compared"] - points["delta"]).round(6)
    return points.assign(published=nearest, ours=points["compared"])[COLUMNS].reset_index(drop=True)


def draw(points: pd.DataFrame, sheet: Sheet) -> Drawn:
    """Draw the panels of the first table, as many as fit.

    Labels are to the right of each panel, one line apart, and a thin line leads from a label to its point.
    """
    heading = str(points["table"].iloc[0])
    panels = list(points[points["table"] == heading].groupby("pair"))
    across = min(len(panels), ACROSS)
    width = sheet.wide if across > 1 else sheet.panel
    canvas = Canvas(
        sheet,
        width,
        f"Top-1 (%), ours against published: {heading}",
        [READING],
        [str(pair) for pair, _ in panels],
    )
    most = max(len(_texts(rows)[1]) for _, rows in panels)
    line = min(LINE, (canvas.room_for(LINE * (most + 1) + 1.3) - 1.3) / (most + 1))
    tall = max(LEAST, line * (most + 1))
    down = min(-(-len(panels) // across), max(1, int(canvas.room / (tall + 1))))
    step = (width - 0.1) / across
    wide = min(step - LEFT - LABELS, tall)
    total = int(points.groupby("table")["pair"].nunique().sum())
    said = left_out(min(across * down, len(panels)), total, "panels")
    figure, (part,) = canvas.draw([(tall + 1) * down], said)
    width, height = style.inches(part)
    for i, (pair, rows) in enumerate(panels[: across * down]):
        left, bottom = LEFT + step * (i % across), height - 0.45 - tall - (tall + 1) * (i // across)
        ax = part.add_axes((left / width, bottom / height, wide / width, tall / height))
        _panel(ax, rows, tall, line)
        ax.set_title(style.title(str(pair), 28) if canvas.named else "")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, tall: float, line: float) -> None:
    rows = rows.sort_values(["ours", "label"])
    spread = rows["se"].fillna(0.0)
    ends = [rows["low"], rows["high"], rows["ours"] - spread, rows["ours"] + spread]
    low, high = min(e.min() for e in ends), max(e.max() for e in ends)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    ax.set(xlim=(low, high), ylim=(low, high), xlabel="published", ylabel="ours")
    ax.axline((low, low), slope=1, color=style.GREY, linewidth=0.8, zorder=0)
    colours = [style.colour(label) for label in rows["label"]]
    ax.hlines(rows["ours"], rows["low"], rows["high"], colors=colours, linewidth=1.0)
    ax.vlines(rows["published"], rows["ours"] - spread, rows["ours"] + spread, colors=colours, linewidth=1.0)
    ax.scatter(rows["published"], rows["ours"], s=20, c=colours, zorder=3)
    _labels(ax, rows, colours, (high - low) * line / tall, min(style.READABLE, 72 * line * 0.7))


def _labels(ax: Axes, rows: pd.DataFrame, colours: Sequence[str], gap: float, size: float) -> None:
    """Beside the axes, in the points' order from below, ``gap`` apart; a thin line leads to each point."""
    low, high = ax.get_xlim()  # and of y
    owners, lines = _texts(rows)
    places = apart(rows["ours"].to_numpy()[owners], gap, low, high)
    middles = [places[np.asarray(owners) == i].mean() for i in range(len(rows))]
    edge = low + 1.04 * (high - low)
    leaders = [[(x, y), (edge, m)] for x, y, m in zip(rows["published"], rows["ours"], middles, strict=True)]
    ax.add_collection(
        LineCollection(leaders, colors=colours, linewidths=0.4, alpha=0.7, clip_on=False, zorder=1)
    )
    ax.set(xlim=(low, high), ylim=(low, high))
    for i, text, place in zip(owners, lines, places, strict=True):
        ax.text(edge, place, f" {text}", fontsize=size, va="center", color=colours[i])


def _texts(rows: pd.DataFrame) -> tuple[list[int], list[str]]:
    """Labels, folded: (number of the row, line), from the lowest line up."""
    folded = [textwrap.wrap(label, 24)[::-1] for label in rows["label"]]
    return [i for i, lines in enumerate(folded) for _ in lines], [line for lines in folded for line in lines]


def apart(targets: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Rising places near the ``targets`` (rising), ``gap`` apart at least, within low..high where they fit."""
    steps = gap * np.arange(len(targets))
    free = np.clip(np.asarray(targets, float) - steps, low, max(low, high - gap * max(len(targets) - 1, 0)))
    return np.maximum.accumulate(free) + steps
