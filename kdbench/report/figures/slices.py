"""Every trial's accuracy against each of its parameters: where a method is sensitive, and which end wins."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.results.trials import space_of, values_of
from kdbench.utils.search_space import Choice
from kdbench.utils.status import Status

COLUMNS = "pair method parameter value log trial top1 default".split()
HEIGHT, ACROSS = 1.45, 5  # inches of a panel, and panels in a row
EDGE = 0.25  # inches above and below all


def frame(trials: pd.DataFrame) -> pd.DataFrame:
    """A line per trial and parameter. Values without an order are numbered as in the space; ``default``: trial 0."""
    lines = []
    for row in trials[trials["status"] == Status.OK].to_dict("records"):
        space = space_of(row)
        for key, value in values_of(row).items():
            words = isinstance(values := space[key], Choice)
            place = values.values.index(value) if isinstance(values, Choice) else value
            log = not words and "log" in values.table
            pair = f"{row['teacher']} -> {row['student']}"
            lines.append(
                (pair, row["method"], key, float(place), log, row["trial"], row["top1"], row["trial"] == 0)
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def draw(data: pd.DataFrame, sheet: Sheet) -> Drawn:
    """A panel per method and parameter of the first pair, as many as fit."""
    pair = data["pair"].iloc[0]
    first = data[data["pair"] == pair]
    panels = [(f"{method}: {key}", rows) for (method, key), rows in first.groupby(["method", "parameter"])]
    reading = "Dots: trials, mean over seeds. Ring: the suite's values. ★: the best trial."
    canvas = Canvas(sheet, sheet.wide, f"Trials by parameter: {pair.replace('->', '→')}", [reading])
    across = min(len(panels), ACROSS)
    down = min(-(-len(panels) // across), max(1, int((canvas.room - EDGE) / HEIGHT)))
    said = left_out(min(across * down, len(panels)), len(panels), "panels")
    figure, (part,) = canvas.draw([EDGE + HEIGHT * down], said)
    axes = style.grid(part, (down, across), (0.5, 0.1, 0.25, 0.3), 0.55, across=0.4)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (name, rows) in zip(axes.flat, panels, strict=False):
        look = style.colour(name.partition(":")[0])
        best = rows.loc[[rows["top1"].idxmax()]]
        ax.scatter(rows["value"], rows["top1"], s=7, color=look, alpha=0.7, linewidths=0)
        usual = rows[rows["default"]]
        ax.scatter(usual["value"], usual["top1"], s=34, facecolors="none", edgecolors="black", linewidths=0.8)
        ax.scatter(best["value"], best["top1"], s=40, marker="*", color="black", zorder=3)
        if rows["log"].iloc[0]:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(textwrap.fill(name, 18), fontsize=7)
        ax.tick_params(labelsize=style.READABLE)
    return figure
