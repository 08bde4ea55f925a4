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
NARROW, THIN = 0.33, 0.17  # and at least
SMALL = 0.27, 0.55  # inches of height and width from which an entry has room for a second, smaller line
FOOT = 0.55  # inches below the entries
READING = (
    "Blue is better, red is worse; white is no difference. Large: mean paired difference in points; small: mean top-1 "
    "(number of seeds), where there is room. –: not run; ✗ k of n: k of n seeds diverged; ✗k beside a difference, "
    "hatched: that many, and it is of the others; n/a: the method does not apply. Order: mean rank; without one, last."
)
PARTIAL = " (k) beside a mean: it is over the k pairs that both have."


def frame(board: Board) -> pd.DataFrame:
    """One line per entry of the map: its difference (95 % interval), its top-1 (std, n), and ``note``.

    ``column`` is a pair, or the mean over the pairs that a method shares with the baseline. ``note``: how many seeds
    diverged, else why there is no difference: baseline, n/a, or – (not run), else of how many pairs a mean is where
    it is not of all; else empty. Of the labels that `style.main` names; nothing for a single
    pair, of which a forest shows all, or without the baseline.
    """
    if not board.has_baseline or len(board.table.pairs) < 2:
        return pd.DataFrame(columns=COLUMNS)
    entries = board.entries.rename(columns={"mean": "top1"}).reset_index().rename(columns={"pair": "column"})
    entries["note"] = [_note(entry, board.baseline) for entry in entries.to_dict("records")]
    parts = [entries]
    if board.over_pairs():
        name = f"mean over {len(board.table.pairs)} pairs"
        runs = board.entries[["diverged", "n"]].groupby("label").sum()
        means = board.summary[["delta", "low", "high", "delta_n"]].join(runs).assign(skipped="").reset_index()
        means["note"] = [_note(entry, board.baseline) for entry in means.to_dict("records")]
        partial = (means["note"] == "") & (means["delta_n"] < len(board.table.pairs))
        means.loc[partial, "note"] = style.of_pairs(means["delta_n"], len(board.table.pairs))
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
    return "" if entry["delta_n"] > 0 else "no seed shared"


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """Rows in the order of the leaderboard; as many rows and columns as fit, the first always."""
    labels, columns = list(data["label"].unique()), list(data["column"].unique())
    left = 0.2 + 0.064 * max(map(len, labels))
    shown = columns[: max(1, int((sheet.wide - left - 0.15) / NARROW))]
    width = min((sheet.wide - left - 0.15) / len(shown), WIDTH)
    titles = [style.title(column, max(int(width / style.LETTER), 12)) for column in shown]
    upright = width < style.LETTER * max(map(_longest, titles))
    top = 0.2 + (0.058 * max(map(_longest, titles)) if upright else 0.14 * max(t.count("\n") for t in titles))
    heading = f"Top-1 against {baseline}, points, last epoch:\n{data['table'].iloc[0]}"
    partial = PARTIAL * bool(data["note"].str.endswith("pairs").any())
    canvas = Canvas(sheet, sheet.wide, heading, [READING + partial])
    space = canvas.room_for(top + THIN * len(labels) + FOOT) - top - FOOT
    drawn = labels[: max(1, int(space / THIN + 1e-9))]
    high = min(HEIGHT, space / len(drawn))
    said = left_out(len(drawn), len(labels), "methods") + left_out(len(shown), len(columns), "columns")
    figure, (part,) = canvas.draw([top + high * len(drawn) + FOOT], said)
    spare = (sheet.wide - left - 0.15 - width * len(shown)) / 2
    ax = style.grid(part, (1, 1), (left + spare, 0.15 + spare, top, FOOT), 0.0)[0, 0]
    block = data[data["label"].isin(drawn) & data["column"].isin(shown)]
    _scale(part, *_map(ax, block, high, width))
    ax.set_xticks(np.arange(len(shown)) + 0.5, titles, fontsize=7, rotation=90 if upright else 0)
    ax.set_yticks(np.arange(len(drawn)) + 0.5, drawn, fontsize=min(7.5, 72 * high * 0.72))
    return figure


def _longest(title: str) -> int:
    return max(map(len, title.split("\n")))


def _map(ax: Axes, block: pd.DataFrame, high: float, width: float) -> tuple[QuadMesh, bool]:
    """The coloured entries, high x width inches, and whether some differences are beyond the ends of the colours."""
    labels, columns = list(block["label"].unique()), list(block["column"].unique())
    most = style.reach(block["delta"])
    values = block.pivot(index="label", columns="column", values="delta").loc[labels, columns].to_numpy(float)
    norm, colours = Normalize(-most, most), colormaps["RdBu"]
    mesh = ax.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=1.0)
    for entry in block.to_dict("records"):
        x, y = columns.index(entry["column"]), labels.index(entry["label"])
        below = _small(entry) if high > SMALL[0] and width > SMALL[1] else ""
        if np.isnan(entry["delta"]):
            large, colour = _empty(ax, x, y, entry), "black" if _failed(entry) else style.GREY
            below = below if entry["n"] else ""
        else:
            colour = style.ink(colours(norm(entry["delta"])))
            large = _difference(ax, x, y, entry, colour)
        size = min(7.5, 72 * high * 0.6, 72 * width / (0.68 * len(large)))
        _text(ax, x, y, large, below, colour, size)
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(labels), 0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return mesh, bool(block["delta"].abs().max() > most)


def _small(entry: Mapping) -> str:
    return "" if np.isnan(entry["top1"]) else f"{entry['top1']:.2f} ({entry['n']:.0f})"


def _difference(ax: Axes, x: int, y: int, entry: Mapping, colour: str) -> str:
    """The text of a difference, with what it is of; hatched where seeds diverged."""
    large = f"{entry['delta']:+.2f}"
    if entry["note"].endswith("pairs"):
        return f"{large} ({entry['note'].split()[0]})"
    if not _failed(entry):
        return large
    ax.add_patch(Rectangle((x, y), 1, 1, fill=False, hatch="////", edgecolor=colour, linewidth=0, alpha=0.25))
    return f"{large} ✗{entry['note'].split()[1]}"


def _failed(entry: Mapping) -> bool:
    return entry["note"].startswith("diverged")


def _empty(ax: Axes, x: int, y: int, entry: Mapping) -> str:
    """The text of an entry without a difference: grey where it was run, hatched where it diverged, blank else."""
    run = not np.isnan(entry["top1"]) or entry["note"] == "baseline"
    looks: dict = {"facecolor": "#F2F2F2" if run else "white", "edgecolor": "white"}
    if _failed(entry):
        looks = {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "////"}
    ax.add_patch(Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, linewidth=0, **looks))
    return "✗ " + entry["note"].removeprefix("diverged ") if _failed(entry) else entry["note"]


def _text(ax: Axes, x: float, y: float, large: str, small: str, colour: str, size: float) -> None:
    looks: dict = {"color": colour, "ha": "center", "va": "center"}
    ax.text(x + 0.5, y + (0.34 if small else 0.5), large, fontsize=size, **looks)
    if small:
        ax.text(x + 0.5, y + 0.75, small, fontsize=style.READABLE, **looks)


def _scale(part: SubFigure, mesh: QuadMesh, beyond: bool) -> None:
    """The colour bar, below; pointed where some differences are beyond its ends."""
    width, height = style.inches(part)
    span = min(3.0, width / 2)
    cax = part.add_axes(((width - span) / 2 / width, 0.38 / height, span / width, 0.1 / height))
    bar = part.colorbar(mesh, cax=cax, orientation="horizontal", extend="both" if beyond else "neither")
    bar.set_label("points", size=7)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]
