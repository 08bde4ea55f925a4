"""The main figure: paired differences from the baseline, every seed a dot, with mean and 95 % interval."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.report.leaderboard import Board, level
from kdbench.results.statistics import summary as stats

COLUMNS = ["table", "panel", "label", "dot", "delta", "low", "high", "n", "note"]
WIDTH = 1.6  # least inches of a panel
LABEL, SHORT = 28, 19  # letters of a line of a label; in a column of a paper
NOTE = 0.35  # of a panel's width: what a note needs
RIGHT = 0.15  # inches right of the last panel
LINE, THIN = 0.22, 0.14  # inches of a method in it, and the least
FOOT = 0.3  # inches below the panels
STEP = 0.02  # of a panel's width, from one arrow head for a dot to the next
READING = (
    "Right of 0 is better. Dots: seeds, paired (in the panel over pairs: the pairs' means). Diamond: their mean. "
    "Bar: 95% interval (pooled error); an arrow head where it leaves the panel, and the mean if beyond too. A small "
    "arrow head: a dot beyond the panel."
)
PARTIAL = "k of n pairs, hollow diamond: the mean is of the k pairs that both have."
DIVERGED = "✗ k of n, hollow diamond: k of n seeds diverged; dots and mean are those of the others."


def frame(board: Board, shown: Collection[str] | None = None) -> pd.DataFrame:
    """What `draw` draws: for each panel and label a mean (low, high, n) with a note, and dots.

    A panel is one pair with its seeds, or the means of all pairs that a method shares with the baseline: ``dot`` names
    the seed or the pair, and is empty in a mean. note: how many seeds diverged, else why there is no mean, else of how
    many pairs it is where it is not of all, else empty. Panels without any interval are left out. ``shown``: the
    labels, else those of `style.main`.
    """
    if not board.has_baseline:
        return pd.DataFrame(columns=COLUMNS)
    shown = style.main(board.labels) if shown is None else shown
    others = [label for label in board.labels if label != board.baseline and label in shown]
    differences = stats.paired(board.table.wide(), board.baseline)
    parts = []
    if board.over_pairs():
        name = f"mean over {len(board.table.pairs)} pairs"
        dots = board.entries["delta"].unstack("label").loc[board.table.pairs, others]
        means = board.summary.loc[others, ["delta", "low", "high", "delta_n"]].copy()
        counts = board.entries[["diverged", "n"]].groupby("label").sum().loc[others]
        means["note"] = _notes(means["delta"], counts)
        partial = (means["note"] == "") & (means["delta_n"] < len(board.table.pairs))
        means.loc[partial, "note"] = style.of_pairs(means["delta_n"], len(board.table.pairs))
        parts.append(_panel(name, dots[means.index[means["delta"].notna()]], means))
    for pair in board.table.pairs:
        entries = level(board.entries, "pair", pair).loc[others]
        note = _notes(entries["delta"], entries).mask(
            entries["delta"].isna() & (entries["skipped"] != ""), "n/a"
        )
        seeds = level(differences, "pair", pair)
        parts.append(_panel(pair, seeds.reindex(columns=others), entries.assign(note=note)))
    parts = [part for part in parts if part["low"].notna().any()]
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return whole.assign(table=board.table.heading)[COLUMNS]


def _notes(delta: pd.Series, counts: pd.DataFrame) -> pd.Series:
    """'✗ 1 of 3' where seeds diverged, '–' where there is neither this nor a difference, else ''."""
    failed, all_ = counts["diverged"], counts["diverged"] + counts["n"]
    diverged = "✗ " + failed.astype(str) + " of " + all_.astype(str)
    return diverged.where(failed > 0, np.where(delta.isna(), "–", ""))


def _panel(name: str, dots: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """dots [seed or pair x label], means [label] -> long rows."""
    summary = means[["delta", "low", "high", "delta_n", "note"]].rename(columns={"delta_n": "n"})
    summary = summary.rename_axis("label").reset_index().assign(dot="")
    single = dots.rename_axis(index="dot", columns="label").melt(value_name="delta", ignore_index=False)
    single = single.dropna(subset=["delta"]).reset_index().astype({"dot": str})
    return pd.concat([summary, single.assign(note="")]).assign(panel=name)


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str, reading: Sequence[str] = (READING,)) -> Drawn:
    """One panel per pair, one line per method, as many as fit: the first panel and the best methods are always there.

    A figure of one panel is as wide as a column of the sheet, where its labels leave room; a paper's has the
    first panel alone.
    """
    every, labels = list(data["panel"].unique()), list(data["label"].unique())
    names = every if sheet.words else every[:1]
    most = LABEL if sheet.words else SHORT
    lines = {label: textwrap.wrap(label, most) for label in labels}
    left = 0.2 + 0.062 * max(len(line) for texts in lines.values() for line in texts)
    width = sheet.wide if len(names) > 1 else max(sheet.column, left + WIDTH + RIGHT)
    heading = f"Top-1 against {baseline}, points, last epoch:\n{data['table'].iloc[0]}"
    failed = [DIVERGED] * bool(data["note"].str.startswith("✗").any())
    partial = [PARTIAL] * bool(data["note"].str.endswith("pairs").any())
    canvas = Canvas(sheet, width, heading, [*reading, *failed, *partial], names)
    across = min(len(names), max(1, int((width - left) / WIDTH)))
    titles = {name: style.title(name, int((width - left) / across / 0.066)) for name in names}
    top = canvas.top(0.25 + 0.14 * max(title.count("\n") + 1 for title in titles.values()))
    sizes = np.cumsum(_sizes(lines.values()))
    space = canvas.room_for(top + THIN * sizes[-1] + FOOT) - FOOT
    labels = labels[: max(1, int((sizes <= (space - top) / THIN + 1e-9).sum()))]
    places, end = _places([lines[label] for label in labels])
    line = min(LINE, (space - top) / end)
    tall = top + line * end
    down = min(-(-len(names) // across), max(1, int(space / tall)))
    shown = names[: across * down]
    said = left_out(len(labels), data["label"].nunique(), "methods")
    said += left_out(len(shown), len(every), "panels", "the heat map and ")
    figure, (part,) = canvas.draw([FOOT + tall * down], said)
    box = left, RIGHT, top, FOOT
    grid = style.grid(part, (down, across), box, top, sharex=True, sharey=True)
    block = data[data["panel"].isin(shown) & data["label"].isin(labels)]
    panels = [(titles[name], block[block["panel"] == name]) for name in shown]
    if not canvas.named:
        panels = [("", rows) for _, rows in panels]
    _panels(grid, panels, dict(zip(labels, places, strict=True)), _limits(block))
    size = min(7.5, 72 * line * 0.72)
    grid[0, 0].set_yticks(places, ["\n".join(lines[label]) for label in labels], fontsize=size)
    grid[0, 0].set_ylim(end, 0)
    return figure


def _sizes(labels: Collection[Sequence[str]]) -> np.ndarray:
    """Labels in lines -> their heights on the axis, in labels of one line."""
    return 0.13 + 0.87 * np.array([len(lines) for lines in labels])


def _places(labels: Collection[Sequence[str]]) -> tuple[np.ndarray, float]:
    """Labels in lines -> the middles of their places on the axis, and the axis' end."""
    sizes = _sizes(labels)
    return np.cumsum(sizes) - sizes / 2, float(sizes.sum())


def _panels(
    grid: np.ndarray,
    panels: Sequence[tuple[str, pd.DataFrame]],
    places: dict[str, float],
    limits: tuple[float, float],
) -> None:
    across = grid.shape[1]
    for i, ax in enumerate(grid.flat):
        ax.set_visible(i < len(panels))
        ax.tick_params(axis="x", labelbottom=i + across >= len(panels), length=2)
        ax.tick_params(axis="y", length=0, pad=5)
    for ax, (title, rows) in zip(grid.flat, panels, strict=False):
        _draw_panel(ax, rows.assign(place=rows["label"].map(places)), limits)
        ax.set_title(title)


def _limits(block: pd.DataFrame) -> tuple[float, float]:
    """0 and the means within `style.reach`, and the intervals as far as they do not shrink these to a third."""
    most = style.reach(block.loc[block["dot"] == "", "delta"])
    inside = block["delta"].clip(-most, most)
    low, high = min(inside.min(), 0.0), max(inside.max(), 0.0)
    room = (high - low) or 1.0
    left, right = np.nanmin([low, block["low"].min()]), np.nanmax([high, block["high"].max()])
    return max(left, low - room / 2) - 0.08 * room, min(right, high + room / 2) + 0.08 * room


def _draw_panel(ax: Axes, rows: pd.DataFrame, limits: tuple[float, float]) -> None:
    left, right = limits
    ax.set_xlim(left, right)
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    ax.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    ax.set_axisbelow(True)
    rows = rows.assign(colour=rows["label"].map(style.colour))
    dots, means = rows[rows["dot"] != ""], rows[(rows["dot"] == "") & rows["delta"].notna()]
    inside = dots["delta"].between(left, right)
    ax.scatter(
        dots["delta"][inside],
        dots["place"][inside] + 0.22,
        s=6,
        c=dots["colour"][inside],
        alpha=0.65,
        linewidths=0,
    )
    spans = means.dropna(subset=["low"])
    ends = spans["low"].clip(left, right), spans["high"].clip(left, right)
    ax.hlines(spans["place"] - 0.08, *ends, colors=list(spans["colour"]), linewidth=1.3)
    for end, mark, side, sign in [(left, "<", "left", 1), (right, ">", "right", -1)]:
        far = means[["low", "delta", "high"]].mul(sign).min(axis=1) < sign * end
        beyond = dots[sign * dots["delta"] < sign * end]
        inwards = sign * STEP * (right - left) * beyond.groupby("label").cumcount()
        for some, place, below, size in ((means[far], end, -0.08, 16), (beyond, end + inwards, 0.22, 8)):
            arrows: dict[str, Any] = {
                "s": size,
                "c": some["colour"],
                "marker": mark,
                "clip_on": False,
                "linewidths": 0,
            }
            ax.scatter(np.broadcast_to(place, len(some)), some["place"] + below, **arrows)
        for row in means[sign * means["delta"] < sign * end].to_dict("records"):
            said = ", ".join(filter(None, [f"{row['delta']:+.1f}", row["note"]]))
            _say(ax, end, row["place"], f"  {said}  ", ha=side)
    looks: dict[str, Any] = {"s": 18, "marker": "D", "edgecolors": "white", "linewidths": 0.5, "zorder": 3}
    shown = means[means["delta"].between(left, right)]
    whole, partial = shown[shown["note"] == ""], shown[shown["note"] != ""]
    ax.scatter(whole["delta"], whole["place"] - 0.08, c=whole["colour"], **looks)
    looks |= {"c": "white", "edgecolors": list(partial["colour"]), "linewidths": 1.0}
    ax.scatter(partial["delta"], partial["place"] - 0.08, **looks)
    missing = rows[(rows["dot"] == "") & rows["delta"].isna()]
    for row in pd.concat([partial, missing]).to_dict("records"):
        _note(ax, row, limits)


def _note(ax: Axes, row: Mapping, limits: tuple[float, float]) -> None:
    """The note of a mean: where there is no mean at 0, else beside its bar, on the side with more room."""
    left, right = limits
    if np.isnan(row["delta"]):
        _say(ax, 0, row["place"], f" {row['note']}")
        return
    ends = [row["delta"]] * 2 if np.isnan(row["low"]) else [row["low"], row["high"]]
    low, high = np.clip(ends, left, right)
    place, text = row["place"] - 0.08, row["note"]
    if max(right - high, low - left) < NOTE * (right - left):  # below the bar, at the end far from the mean
        after = row["delta"] < (left + right) / 2
        _say(ax, right if after else left, row["place"] + 0.3, text, ha="right" if after else "left")
    elif right - high > low - left:
        _say(ax, high, place, f"  {text}")
    else:
        _say(ax, low, place, f"{text}  ", ha="right")


def _say(ax: Axes, x: float, y: float, text: str, **more: Any) -> None:
    ax.text(x, y, text, color=style.GREY, fontsize=7, va="center", **more)
