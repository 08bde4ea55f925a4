"""Methods x pairs at a glance: the difference to the baseline as colour and as text, with the accuracy behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.report.leaderboard import Board

COLUMNS = ["table", "label", "column", "delta", "low", "high", "top1", "std", "n", "note"]
WIDTH, HEIGHT = 1.7, 0.3  # inches of an entry at most
NARROW, THIN = 0.33, 0.1  # and at least
FOOT = 0.55  # inches below the entries
READING = (
    "Blue is better, red is worse; white is no difference. Large: mean paired difference in points; small: mean top-1 "
    "(number of seeds), where there is room. –: not run; ✗ k of n: k of n seeds diverged; ✗k beside a difference, "
    "hatched: that many, and it is of the others; n/a: the method does not apply. Order: mean rank."
)


def frame(board: Board) -> pd.DataFrame:
    """One line per entry of the map: its difference (95 % interval), its top-1 (std, n), and ``note``.

    ``column`` is a pair, or the mean over the common pairs. ``note``: how many seeds diverged, else why there is no
    difference: baseline, n/a, or – (not run); else empty. Of the labels that `style.main` names; nothing for a single
    pair, of which a forest shows all, or without the baseline.
    """
    if not board.has_baseline or len(board.table.pairs) < 2:
        return pd.DataFrame(columns=COLUMNS)
    entries = board.entries.rename(columns={"mean": "top1"}).reset_index().rename(columns={"pair": "column"})
    entries["note"] = [_note(entry, board.baseline) for entry in entries.to_dict("records")]
    parts = [entries]
    if board.over_pairs():
        name = f"mean over {len(board.table.pairs)} pairs"
        runs = board.entries[["diverged", "n", "delta_n"]].groupby("label").sum()
        means = board.summary[["delta", "low", "high"]].join(runs).assign(skipped="").reset_index()
        means["note"] = [_note(entry, board.baseline) for entry in means.to_dict("records")]
        parts.insert(0, means.drop(columns="n").assign(column=name))
    whole = pd.concat(parts, ignore_index=True).assign(table=board.table.heading)
    whole = whole[whole["label"].isin(style.main(board.labels))]
    if whole["delta"].isna().all():
        return pd.DataFrame(columns=COLUMNS)
    order = whole["label"].map(board.labels.index)
    return whole.iloc[np.argsort(order, kind="stable")][COLUMNS].reset_index(drop=True)


def _note(entry: Mapping, baseline: str) -> str:
    if entry["diverged"]:
        return f"diverged {entry['diverged']} of {entry['diverged'] + entry['n']}"
    if entry["n"] == 0:
        return "n/a" if entry["skipped"] else "–"
    if entry["label"] == baseline:
        return "baseline"
    return "" if entry["delta_n"] else "no seed shared"


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """Rows in the order of the leaderboard; as many rows and columns as fit, the first always."""
    labels, columns = list(data["label"].unique()), list(data["column"].unique())
    left = 0.2 + 0.064 * max(map(len, labels))
    shown = columns[: max(1, int((sheet.wide - left - 0.15) / NARROW))]
    width = min((sheet.wide - left - 0.15) / len(shown), WIDTH)
    titles = [style.title(column, max(int(width / 0.06), 12)) for column in shown]
    upright = width < 0.06 * max(len(line) for title in titles for line in title.split("\n"))
    top = 0.2 + (0.058 * max(map(_longest, titles)) if upright else 0.14 * max(t.count("\n") for t in titles))
    heading = f"Top-1 against {baseline}, points, last epoch:\n{data['table'].iloc[0]}"
    canvas = Canvas(sheet, sheet.wide, heading, [READING])
    space = canvas.room - top - FOOT
    drawn = labels[: max(1, int(space / THIN))]
    high = min(HEIGHT, space / len(drawn))
    said = left_out(len(drawn), len(labels), "methods") + left_out(len(shown), len(columns), "columns")
    figure, (part,) = canvas.draw([top + high * len(drawn) + FOOT], said)
    spare = (sheet.wide - left - 0.15 - width * len(shown)) / 2
    ax = style.grid(part, (1, 1), (left + spare, 0.15 + spare, top, FOOT), 0.0)[0, 0]
    block = data[data["label"].isin(drawn) & data["column"].isin(shown)]
    _scale(
        part,
        *_map(
            ax, block, size=min(7.5, 72 * high * 0.6, 72 * width / 3.4), small=high > 0.24 and width > 0.42
        ),
    )
    ax.set_xticks(np.arange(len(shown)) + 0.5, titles, fontsize=7, rotation=90 if upright else 0)
    ax.set_yticks(np.arange(len(drawn)) + 0.5, drawn, fontsize=min(7.5, 72 * high * 0.72))
    return figure


def _longest(title: str) -> int:
    return max(map(len, title.split("\n")))


def _map(ax: Axes, block: pd.DataFrame, size: float, small: bool) -> tuple[QuadMesh, bool]:
    """The coloured entries, and whether some differences are beyond the ends of the colours.

    size: points of the text; small: whether there is room for the accuracy below it.
    """
    labels, columns = list(block["label"].unique()), list(block["column"].unique())
    most = style.reach(block["delta"])
    values = block.pivot(index="label", columns="column", values="delta").loc[labels, columns].to_numpy(float)
    norm, colours = Normalize(-most, most), colormaps["RdBu"]
    mesh = ax.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=1.0)
    for entry in block.to_dict("records"):
        x, y = columns.index(entry["column"]), labels.index(entry["label"])
        below = _small(entry) if small else ""
        if np.isnan(entry["delta"]):
            _empty(ax, x, y, entry, below, size)
        else:
            _difference(ax, x, y, entry, below, style.ink(colours(norm(entry["delta"]))), size)
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(labels), 0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return mesh, bool(block["delta"].abs().max() > most)


def _small(entry: Mapping) -> str:
    return "" if np.isnan(entry["top1"]) else f"{entry['top1']:.2f} ({entry['n']:.0f})"


def _difference(ax: Axes, x: int, y: int, entry: Mapping, small: str, colour: str, size: float) -> None:
    """The text of a difference; hatched, with the number of diverged seeds, where it is of the others."""
    large = f"{entry['delta']:+.2f}"
    if entry["note"].startswith("diverged"):
        ax.add_patch(
            Rectangle((x, y), 1, 1, fill=False, hatch="////", edgecolor=colour, linewidth=0, alpha=0.25)
        )
        large, size = f"{large} ✗{entry['note'].split()[1]}", size * 0.8
    _text(ax, x, y, large, small, colour, size)


def _empty(ax: Axes, x: int, y: int, entry: Mapping, small: str, size: float) -> None:
    """An entry without a difference: grey where it was run, hatched where it diverged, a framed blank else."""
    run = not np.isnan(entry["top1"]) or entry["note"] == "baseline"
    looks: dict = {"facecolor": "#F2F2F2" if run else "white", "edgecolor": "white"}
    failed = entry["note"].startswith("diverged")
    if failed:
        looks = {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "////"}
    ax.add_patch(Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, linewidth=0, **looks))
    large = "✗ " + entry["note"].removeprefix("diverged ") if failed else entry["note"]
    colour = "black" if failed else style.GREY
    _text(ax, x, y, large, small if entry["n"] else "", colour, min(size, 7.5 * 8 / max(len(large), 8)))


def _text(ax: Axes, x: float, y: float, large: str, small: str, colour: str, size: float) -> None:
    looks: dict = {"color": colour, "ha": "center", "va": "center"}
    ax.text(x + 0.5, y + (0.34 if small else 0.5), large, fontsize=size, **looks)
    if small:
        ax.text(x + 0.5, y + 0.75, small, fontsize=5.5, **looks)


def _scale(part: SubFigure, mesh: QuadMesh, beyond: bool) -> None:
    """The colour bar, below; pointed where some differences are beyond its ends."""
    width, height = style.inches(part)
    span = min(3.0, width / 2)
    cax = part.add_axes(((width - span) / 2 / width, 0.38 / height, span / width, 0.1 / height))
    bar = part.colorbar(mesh, cax=cax, orientation="horizontal", extend="both" if beyond else "neither")
    bar.set_label("points", size=7)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]
