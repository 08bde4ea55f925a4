"""Cost against accuracy: each method's seconds and accuracy, and the Pareto front of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from kdbench.report.figures import label_placement, style
from kdbench.report.leaderboard import Board

COLUMNS = ["table", "pairs", "label", "kind", "cost", "top1", "delta", "low", "high", "n", "front"]
HEIGHT = 5.4  # inches of the panel with its titles
AXIS = {
    "step": "seconds of its own steps an epoch, without teacher and data, in multiples of {}'s",
    "alone": "seconds per epoch when trained alone (own steps, teacher, data), in multiples of {}'s",
}


def frame(board: Board) -> pd.DataFrame:
    """One line per method (`style.main`) that was timed on the baseline's machine and has a mean on every pair.

    kind: "alone" where that cost is known of every method that has a "step" cost, else "step"; cost: in multiples of
    the baseline's; top1: mean over these pairs; delta: paired, with its 95 % interval over n pairs, or seeds of the
    one pair; front: see `front`.
    """
    if not board.has_baseline:
        return pd.DataFrame(columns=COLUMNS)
    shown = board.summary[board.summary.index.isin(style.main(board.labels))]
    kind = "alone" if shown["alone_cost"].count() >= shown["step_cost"].count() else "step"
    whole = board.entries["mean"].where(board.entries["diverged"] == 0).unstack("label")
    means = whole.loc[board.table.pairs].mean(skipna=False)
    data = shown[[f"{kind}_cost", "delta", "low", "high", "delta_n"]]
    data = data.rename(columns={"delta_n": "n", f"{kind}_cost": "cost"})
    data = data.assign(top1=means, kind=kind).rename_axis("label").reset_index()
    known = data["delta"].notna() | (data["label"] == board.baseline)
    data = data[known & data["cost"].notna() & data["top1"].notna()]
    if len(data) < 2 or board.baseline not in set(data["label"]):
        return pd.DataFrame(columns=COLUMNS)
    data = data.assign(front=front(data["cost"], data["top1"]), table=board.table.heading)
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


def draw(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> Figure:
    """One panel."""
    reading = (
        f"Up and left is better. Bar: 95% interval of the paired difference to {baseline} (dashed: its top-1). Filled "
        "markers and the stepped line: the Pareto front of the means; steps within the bars are no proof. An arrow "
        "head at the foot: far below, with its top-1."
    )
    height = min(HEIGHT, style.room([reading, *footer]))
    figure, (part,) = style.canvas(style.WIDE, [height], [reading, *footer])
    style.heading(part, f"Cost and accuracy: {data['table'].iloc[0]}")
    ax = style.grid(part, (1, 1), (0.7, 0.2, 0.6, 0.5), 0.0)[0, 0]
    ax.set_title(data["pairs"].iloc[0].replace("->", "→"))
    ax.set_xlabel(AXIS[data["kind"].iloc[0]].format(baseline))
    ax.set_ylabel("top-1 (%), last epoch")
    _panel(ax, data, baseline)
    return figure


def _panel(ax: Axes, block: pd.DataFrame, baseline: str) -> None:
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
    for some, marker in ((block[~far], "o"), (block[far], "v")):
        faces = np.where(some["front"], some["colour"], "white")
        ax.scatter(some["cost"], some["y"], s=22, marker=marker, c=faces, edgecolors=some["colour"], zorder=3)
    _log_axis(ax, block["cost"])
    ax.margins(y=0.08)
    ax.autoscale_view()
    corners = np.column_stack([np.repeat(best["cost"], 2)[1:], np.repeat(best["y"], 2)[:-1]])
    lines = [
        np.column_stack([bars["cost"], low, bars["cost"], high]),
        np.hstack([corners[:-1], corners[1:]]),
        np.array([[ax.get_xlim()[0], level, ax.get_xlim()[1], level]]),
    ]
    names = block["label"].where(~far, block["label"] + block["top1"].map(" ({:.1f})".format))
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
