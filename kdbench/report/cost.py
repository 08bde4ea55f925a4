"""Cost against accuracy: what a method takes to train beside what it reaches, and the front of the best offers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from kdbench.report import labels, style
from kdbench.report.board import Board

COLUMNS = ["table", "pairs", "label", "cost", "top1", "delta", "low", "high", "n", "front"]
HEIGHT = 5.4  # inches of a table's panel


def frame(boards: Sequence[Board]) -> pd.DataFrame:
    """One line a method (`style.main`) that was timed beside the baseline on the common pairs.

    cost: in multiples of the baseline's time an epoch; top1: mean over these pairs; delta: paired, with its 95 %
    interval over n pairs, or seeds of the one pair; front: see `front`.
    """
    parts = [_frame(board) for board in boards if board.has_baseline and board.common]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _frame(board: Board) -> pd.DataFrame:
    means = board.cells["mean"].unstack("label").loc[board.common].mean(skipna=False)
    data = board.summary[["cost", "delta", "low", "high", "delta_n"]].rename(columns={"delta_n": "n"})
    data = data.assign(top1=means).rename_axis("label").reset_index()
    known = data["delta"].notna() | (data["label"] == board.baseline)
    data = data[known & data["cost"].notna() & data["label"].isin(style.main(board.labels))]
    data = data.assign(front=front(data["cost"], data["top1"]), table=board.table.heading)
    return data.assign(pairs=_pairs(board)).sort_values(["cost", "label"])[COLUMNS]


def _pairs(board: Board) -> str:
    if board.over_pairs():
        return f"mean over {len(board.common)} of {len(board.table.pairs)} pairs"
    return board.common[0]


def front(cost: ArrayLike, score: ArrayLike) -> np.ndarray:
    """The Pareto front: True where no other has at most this cost and at least this score, one of them strictly."""
    c, s = np.asarray(cost, float), np.asarray(score, float)
    as_good = (c[None] <= c[:, None]) & (s[None] >= s[:, None])
    better = as_good & ((c[None] < c[:, None]) | (s[None] > s[:, None]))
    return np.logical_not(better.any(axis=1))


def draw(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> Figure:
    """One panel a table."""
    if not len(data):
        return style.empty(f"nothing timed beside {baseline}", footer)
    blocks = [block for _, block in data.groupby("table", sort=False)]
    reading = (
        f"Up and left is better. Bar: 95% interval of the paired difference to {baseline} (dashed: its top-1). Filled "
        "markers and the stepped line: the Pareto front of the means; steps within the bars are no proof. An arrow "
        "head at the foot: far below, with its top-1."
    )
    figure, parts = style.canvas(8.5, [HEIGHT] * len(blocks), [reading, *footer])
    for part, block in zip(parts, blocks, strict=True):
        style.heading(part, f"Cost and accuracy: {block['table'].iloc[0]}")
        ax = style.grid(part, (1, 1), (0.7, 0.2, 0.6, 0.5), 0.0)[0, 0]
        ax.set_title(block["pairs"].iloc[0].replace("->", "→"))
        ax.set_xlabel(f"training time an epoch, multiples of {baseline}'s")
        ax.set_ylabel("top-1 (%), last epoch")
        _panel(ax, block, baseline)
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
    labels.place(ax, block["cost"].tolist(), block["y"].tolist(), names.tolist(), np.vstack(lines))


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
