"""Methods x pairs at a glance: the difference to the baseline as colour and as text, with the accuracy behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from kdbench.report import style
from kdbench.report.board import Board

COLUMNS = ["table", "label", "column", "delta", "low", "high", "top1", "std", "n", "note"]
WIDTH, HEIGHT = 0.85, 0.3  # least inches of a cell
READING = (
    "Blue is better, red is worse; white is no difference. Large: mean paired difference in points; small: mean top-1 "
    "(number of seeds). –: not run; ✗: diverged; n/a: the method does not apply. Order: mean rank."
)


def frame(boards: Sequence[Board]) -> pd.DataFrame:
    """One line a cell of the map: its difference (95 % interval), its top-1 (std, n), and ``note``.

    ``column`` is a pair, or the mean over the common pairs. ``note`` says why there is no difference: baseline,
    diverged (how many of the seeds), n/a, or – (not run); it is empty where there is one. Tables without the
    baseline are left out.
    """
    parts = [_frame(board) for board in boards if board.has_baseline]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _frame(board: Board) -> pd.DataFrame:
    cells = board.cells.rename(columns={"mean": "top1"}).reset_index().rename(columns={"pair": "column"})
    cells["note"] = [_note(cell, board.baseline) for cell in cells.to_dict("records")]
    parts = [cells]
    if board.over_pairs():
        name = f"mean over {len(board.common)} of {len(board.table.pairs)} pairs"
        means = board.summary[["delta", "low", "high"]].reset_index()
        means["note"] = np.where(means["delta"].isna(), "–", "")
        means.loc[means["label"] == board.baseline, "note"] = "baseline"
        parts.insert(0, means.assign(column=name))
    whole = pd.concat(parts, ignore_index=True).assign(table=board.table.heading)
    order = whole["label"].map(board.labels.index)
    whole.loc[whole["note"] != "", ["delta", "low", "high"]] = np.nan
    return whole.iloc[np.argsort(order, kind="stable")][COLUMNS]


def _note(cell: Mapping, baseline: str) -> str:
    if cell["diverged"]:
        return f"diverged {cell['diverged']} of {cell['diverged'] + cell['n']}"
    if cell["n"] == 0:
        return "n/a" if cell["skipped"] else "–"
    if cell["label"] == baseline:
        return "baseline"
    return "" if cell["delta_n"] else "no seed shared"


def draw(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> Figure:
    """One block a table; rows in the order of the leaderboard."""
    if not len(data):
        return style.empty(f"nothing to compare with: no finished run of {baseline}", footer)
    blocks = [block for _, block in data.groupby("table", sort=False)]
    left = 0.2 + 0.064 * data["label"].str.len().max()
    most = max(block["column"].nunique() for block in blocks)
    cell = min(max(WIDTH, (7.0 - left - 0.15) / most), 2 * WIDTH)
    width = max(left + cell * most + 0.15, 7.0)
    titles = {column: style.title(column, int(cell / 0.064)) for column in data["column"].unique()}
    tops = [0.4 + 0.14 * max(titles[c].count("\n") + 1 for c in block["column"]) for block in blocks]
    heights = [
        top + HEIGHT * block["label"].nunique() + 0.65 for top, block in zip(tops, blocks, strict=True)
    ]
    figure, parts = style.canvas(width, heights, [READING, *footer])
    for part, block, top in zip(parts, blocks, tops, strict=True):
        style.heading(part, f"Top-1 against {baseline}, points, last epoch: {block['table'].iloc[0]}")
        spare = (width - left - cell * block["column"].nunique()) / 2
        ax = style.grid(part, (1, 1), (left + spare, spare, top, 0.65), 0.0)[0, 0]
        _scale(part, *_map(ax, block, titles))
    return figure


def _map(ax: Axes, block: pd.DataFrame, titles: Mapping[str, str]) -> tuple[QuadMesh, bool]:
    """The cells of one table -> the coloured ones, and whether some lie beyond the ends of the colours."""
    labels, columns = list(block["label"].unique()), list(block["column"].unique())
    most = style.reach(block["delta"])
    values = block.pivot(index="label", columns="column", values="delta").loc[labels, columns].to_numpy()
    norm, colours = Normalize(-most, most), colormaps["RdBu"]
    mesh = ax.pcolormesh(values, cmap=colours, norm=norm, edgecolors="white", linewidth=1.0)
    for cell in block.to_dict("records"):
        x, y = columns.index(cell["column"]), labels.index(cell["label"])
        if np.isnan(cell["delta"]):
            _empty(ax, x, y, cell)
        else:
            _text(ax, x, y, f"{cell['delta']:+.2f}", _small(cell), style.ink(colours(norm(cell["delta"]))))
    ax.set_xlim(0, len(columns))
    ax.set_ylim(len(labels), 0)
    ax.xaxis.tick_top()
    ax.set_xticks(np.arange(len(columns)) + 0.5, [titles[column] for column in columns], fontsize=7)
    ax.set_yticks(np.arange(len(labels)) + 0.5, labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return mesh, bool(block["delta"].abs().max() > most)


def _small(cell: Mapping) -> str:
    return "" if np.isnan(cell["top1"]) else f"{cell['top1']:.2f} ({cell['n']:.0f})"


def _empty(ax: Axes, x: int, y: int, cell: Mapping) -> None:
    """A cell without a difference: grey where it was run, hatched where it diverged, a framed blank else."""
    run = not np.isnan(cell["top1"]) or cell["note"] == "baseline"
    looks: dict = {"facecolor": "#F2F2F2" if run else "white", "edgecolor": "white"}
    failed = cell["note"].startswith("diverged")
    if failed:
        looks = {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "////"}
    ax.add_patch(Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, linewidth=0, **looks))
    large = "✗ " + cell["note"].removeprefix("diverged ") if failed else cell["note"]
    _text(ax, x, y, large, _small(cell) if cell["n"] else "", "black" if failed else style.GREY)


def _text(ax: Axes, x: float, y: float, large: str, small: str, colour: str) -> None:
    looks: dict = {"color": colour, "ha": "center", "va": "center"}
    ax.text(x + 0.5, y + (0.34 if small else 0.5), large, fontsize=7.5, **looks)
    if small:
        ax.text(x + 0.5, y + 0.75, small, fontsize=5.5, **looks)


def _scale(part: SubFigure, mesh: QuadMesh, beyond: bool) -> None:
    """The colour bar, below; pointed where colours stand for more than its ends."""
    width, height = style.inches(part)
    span = min(3.0, width / 2)
    cax = part.add_axes(((width - span) / 2 / width, 0.38 / height, span / width, 0.1 / height))
    bar = part.colorbar(mesh, cax=cax, orientation="horizontal", extend="both" if beyond else "neither")
    bar.set_label("points", size=7)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]
