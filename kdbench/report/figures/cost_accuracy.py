"""Cost against accuracy: each method's seconds and accuracy, and the Pareto front of both."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from kdbench.report.columns import APART
from kdbench.report.figures import label_placement, style
from kdbench.report.figures.looks import look
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet
from kdbench.report.leaderboard import Board

COLUMNS = ["table", "pairs", "label", "kind", "cost", "top1", "delta", "low", "high", "n", "note", "front"]
SHAPE = 0.73  # height of the panel with its titles, in widths
NAMES = 1.8  # of methods for which a square inch has room
AXIS = {
    "step": (
        "own steps, × {}",
        "Cost: seconds per epoch of a method's own steps, without teacher and data, in multiples of {}'s.",
    ),
    "alone": (
        "trained alone, × {}",
        "Cost: seconds per epoch of a method trained alone (own steps, teacher, data), in multiples of {}'s.",
    ),
}


def frame(board: Board) -> pd.DataFrame:
    """One line per method (`style.main`) that was timed on the baseline's machine and shares a pair with it.

    kind: "alone" where that cost is known of every method that has a "step" cost, else "step"; cost: in multiples of
    the baseline's; top1: mean over these pairs, of a method without a result on some pair the baseline's mean plus
    delta; delta: paired, with its 95 % interval over n pairs, or seeds of the one pair; note: such a method's pairs
    ("5 of 6 pairs"), seeds that diverged ("✗ 1 of 3": the mean is of the others) and ‡ for a baseline that was timed
    in another cohort; front: see `front`, among methods with all pairs and without a diverged seed.
    """
    if not board.has_baseline:
        return pd.DataFrame(columns=COLUMNS)
    shown = board.summary[board.summary.index.isin(style.main(board.labels))]
    kind = "alone" if shown["alone_cost"].count() >= shown["step_cost"].count() else "step"
    means = board.entries["mean"].unstack("label").loc[board.table.pairs].mean(skipna=False)
    runs = board.entries[["diverged", "n"]].groupby("label").sum()
    data = shown[[f"{kind}_cost", "delta", "low", "high", "delta_n"]]
    data = data.rename(columns={"delta_n": "n", f"{kind}_cost": "cost"})
    partial, failed = means.isna(), runs["diverged"] > 0
    on = style.of_pairs(data["n"], len(board.table.pairs)).where(partial, "")
    diverged = runs["diverged"].map("✗ {}".format) + (runs["diverged"] + runs["n"]).map(" of {}".format)
    note = (diverged.where(failed, "") + " " + on).str.strip()
    note += shown["cost_apart"].map({True: APART, False: ""})
    top1 = means.fillna(means[board.baseline] + data["delta"])
    data = data.assign(top1=top1, kind=kind, note=note, sound=~partial & ~failed)
    data = data.rename_axis("label").reset_index()
    known = data["delta"].notna() | (data["label"] == board.baseline)
    data = data[known & data["cost"].notna() & data["top1"].notna()]
    if len(data) < 2 or board.baseline not in set(data["label"]):
        return pd.DataFrame(columns=COLUMNS)
    sound = data["sound"]
    data["front"] = False
    data.loc[sound, "front"] = front(data.loc[sound, "cost"], data.loc[sound, "top1"])
    data = data.assign(table=board.table.heading)
    return data.assign(pairs=_pairs(board)).sort_values(["cost", "label"])[COLUMNS]


def _pairs(board: Board) -> str:
    if board.over_pairs():
        return f"mean over {len(board.table.pairs)} pairs"
    return board.table.pairs[0]


def front(cost: ArrayLike, score: ArrayLike) -> np.ndarray:
    """The Pareto front: True where no other has at most this cost and at least this score, one of them strictly."""
    c, s = np.asarray(cost, float), np.asarray(score, float)
    as_good = (c[None] <= c[:, None]) & (s[None] >= s[:, None])
    better = as_good & ((c[None] < c[:, None]) | (s[None] > s[:, None]))
    return np.logical_not(better.any(axis=1))


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """One panel."""
    reading = (
        f"Up and left is better. Bar: 95% interval of the paired difference to {baseline} (dashed: its top-1). Filled "
        "markers and the stepped line: the Pareto front of the means; steps within the bars are no proof. An arrow "
        "head at the foot: far below, with its top-1."
    )
    if data["note"].str.startswith("✗").any():
        reading += " ✗ k of n: k of n seeds diverged; the mean is that of the others, and not on the front."
    if data["note"].str.contains("pairs").any():
        reading += (
            f" k of n pairs: without a result on the others, so at {baseline}'s top-1 plus the difference on these; "
            "not on the front."
        )
    if data["note"].str.endswith(APART).any():
        reading += f" {APART}: {baseline} was timed in another cohort, perhaps under another load."
    axis, cost = (text.format(baseline) for text in AXIS[data["kind"].iloc[0]])
    pairs = data["pairs"].iloc[0]
    crowded = len(data) > NAMES * SHAPE * sheet.panel**2
    width = sheet.wide if crowded else sheet.panel
    canvas = Canvas(sheet, width, f"Cost and accuracy: {data['table'].iloc[0]}", [reading, cost], [pairs])
    height = min(SHAPE * width, canvas.room)
    named = _named(data, baseline, int(NAMES * height * width))
    said = [
        f"Named: the front, {baseline} and the best, {len(named)} of {len(data)}; the .csv of this figure has all."
    ]
    figure, (part,) = canvas.draw([height], said if len(named) < len(data) else [])
    ax = style.grid(part, (1, 1), (0.6, 0.2, canvas.top(0.35), 0.45), 0.0)[0, 0]
    ax.set_title(pairs.replace("->", "→") if canvas.named else "")
    ax.set_xlabel(f"seconds per epoch, {axis}")
    ax.set_ylabel("top-1 (%), last epoch")
    _panel(ax, data, baseline, named)
    return figure


def _named(data: pd.DataFrame, baseline: str, most: int) -> set[str]:
    """The methods that have their names beside them: the baseline, the front and the best, as many as there is room."""
    order = data.assign(first=data["front"] | (data["label"] == baseline))
    return set(order.sort_values(["first", "top1"], ascending=False)["label"][:most])


def _panel(ax: Axes, block: pd.DataFrame, baseline: str, named: Collection[str]) -> None:
    level = block.loc[block["label"] == baseline, "top1"].item()
    floor = level - 1.02 * style.reach(block["delta"])
    block = block.assign(y=block["top1"].clip(lower=floor), colour=block["label"].map(style.colour))
    far = block["top1"] < floor
    ax.axhline(level, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    bars = block[~far].dropna(subset=["low"])
    low, high = (bars["top1"] - bars["delta"] + bars[end] for end in ("low", "high"))
    ax.vlines(bars["cost"], low, high, colors=list(bars["colour"]), linewidth=0.8, alpha=0.6)
    best = block[block["front"]].sort_values("cost")
    ax.plot(best["cost"], best["y"], drawstyle="steps-post", color=style.GREY, linewidth=1.0, zorder=1)
    for point in block.assign(far=far).to_dict("records"):
        marker = "v" if point["far"] else look(point["label"]).marker
        face, edge = point["colour"] if point["front"] else "white", point["colour"]
        ax.scatter(point["cost"], point["y"], s=22, marker=marker, c=face, edgecolors=edge, zorder=3)
    _log_axis(ax, block["cost"])
    ax.margins(y=0.08)
    ax.autoscale_view()
    corners = np.column_stack([np.repeat(best["cost"], 2)[1:], np.repeat(best["y"], 2)[:-1]])
    lines = [
        np.column_stack([bars["cost"], low, bars["cost"], high]),
        np.hstack([corners[:-1], corners[1:]]),
        np.array([[ax.get_xlim()[0], level, ax.get_xlim()[1], level]]),
    ]
    names = (block["label"] + " " + block["note"]).str.strip()
    names = names.where(~far, names + block["top1"].map(" ({:.1f})".format))
    names = names.where(block["label"].isin(named), "")
    label_placement.place(ax, block["cost"].tolist(), block["y"].tolist(), names.tolist(), np.vstack(lines))


def _log_axis(ax: Axes, cost: pd.Series) -> None:
    low, high = min(cost.min(), 1.0), max(cost.max(), 1.0)
    ax.set_xscale("log")
    ax.set_xlim(low / (high / low) ** 0.06 / 1.05, high * (high / low) ** 0.06 * 1.05)
    ax.xaxis.set_major_locator(_ticks(high / low))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.minorticks_off()
    ax.grid(color="#EEEEEE", linewidth=0.6)
    ax.set_axisbelow(True)


def _ticks(span: float) -> Locator:
    """Round numbers, some of which lie in a range that ends at ``span`` times its start."""
    if span < 1.5:
        return MaxNLocator(6, steps=[1, 2, 5, 10])
    if span < 8:
        return LogLocator(subs=[1, 1.2, 1.5, 2, 3, 5, 7])
    return LogLocator(subs=[1, 2, 5])
