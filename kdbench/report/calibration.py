"""Reliability diagrams: how often a method is right when it is so sure, one small panel a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure

from kdbench.report import arrays, style
from kdbench.report.frames import Table

COLUMNS = ["table", "label", "pair", "bin", "n", "confidence", "accuracy", "ece", "ece_std", "runs"]
FEW = 10  # samples that a bin must have to be joined to its neighbours
SIDE = 1.55  # inches of a panel with its titles


def ece(bins: np.ndarray) -> float:
    """Expected calibration error, points, of bins [15, 3]: samples, sum of confidences, number right.

    The bins' |confidence - accuracy|, weighted by their samples.
    """
    return float(100 * np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def frame(tables: Sequence[Table], folders: Sequence[Path]) -> pd.DataFrame:
    """One line a label (`style.main`), pair and bin (0..14, equal steps of confidence) that holds a sample.

    n, mean confidence and accuracy (percent): over all samples of the pair's seeds. ece, ece_std: mean and std
    (ddof 1) over its runs, points. Runs without a details file are left out.
    """
    parts = [_of_table(table, folders) for table in tables]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def _of_table(table: Table, folders: Sequence[Path]) -> pd.DataFrame:
    rows = table.finished[table.finished["label"].isin(style.main(table.labels))]
    bins: dict[tuple, list[np.ndarray]] = {}
    for run, (counts,) in arrays.read(rows, folders, "calibration"):
        bins.setdefault((run["label"], run["pair"]), []).append(counts)
    parts = []
    for (label, pair), runs in bins.items():
        n, confidence, right = np.sum(runs, axis=0).T
        held = n > 0
        errors = pd.Series([ece(run) for run in runs])
        columns = {"bin": np.flatnonzero(held), "n": n[held].astype(int)}
        columns |= {"confidence": 100 * confidence[held] / n[held], "accuracy": 100 * right[held] / n[held]}
        one = pd.DataFrame(columns).assign(table=table.heading, label=label, pair=pair)
        parts.append(one.assign(ece=errors.mean(), ece_std=errors.std(), runs=len(runs)))
    return pd.concat(parts) if parts else pd.DataFrame(columns=COLUMNS)


def draw(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> Figure:
    """One block a table, one panel a method, the best calibrated first."""
    if not len(data):
        return style.empty("no calibration recorded", footer)
    blocks = [block for _, block in data.groupby("table", sort=False)]
    counts = [block["label"].nunique() for block in blocks]
    across = min(max(counts), 6)
    while -(-max(counts) // across) > across:
        across += 1
    reading = (
        "On the diagonal confidence is accuracy; below it a method is overconfident. Markers: the bins of all "
        f"pairs and seeds, larger for more samples, joined from {FEW} samples on; thin: single pairs. Grey, dashed: "
        f"{baseline}. ECE: mean ± std over pairs (of one pair: over seeds), points; the smallest stands first."
    )
    heights = [0.55 + SIDE * 1.12 * -(-n // across) for n in counts]
    figure, parts = style.canvas(max(0.6 + SIDE * across, 5.5), heights, [reading, *footer])
    for part, block in zip(parts, blocks, strict=True):
        style.heading(part, f"Reliability: {block['table'].iloc[0]}")
        _block(part, block, baseline, across)
    return figure


def _block(part: SubFigure, block: pd.DataFrame, baseline: str, across: int) -> None:
    cells = block.drop_duplicates(["label", "pair"]).groupby("label")
    errors = cells["ece"].agg(["mean", "std", "count"]).sort_values("mean", kind="stable")
    errors["std"] = errors["std"].fillna(cells["ece_std"].first())
    pairs = block["pair"].nunique()
    down = -(-len(errors) // across)
    grid = style.grid(part, (down, across), (0.5, 0.15, 0.65, 0.4), 0.45, across=0.12)
    bins = _pooled(block)
    base = bins.loc[bins.index.isin([baseline], level="label") & (bins["n"] >= FEW)]
    for i, (label, mean, std, n) in enumerate(errors.itertuples()):
        ax = grid.flat[i]
        ax.set(xlim=(0, 100), ylim=(0, 100), xticks=[25, 50, 75], yticks=[0, 50, 100])
        ax.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.7, zorder=0)
        ax.plot(base["confidence"], base["accuracy"], color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        _panel(ax, block[block["label"] == label], bins.loc[[str(label)]], style.colour(str(label)))
        spread = "" if np.isnan(std) else f" ± {std:.1f}"
        where = f" ({n:.0f} of {pairs} pairs)" if n < pairs else ""
        ax.set_title(f"{style.title(str(label), 22)}\nECE {mean:.1f}{spread}{where}", fontsize=7)
        ax.tick_params(
            labelbottom=i + across >= len(errors), labelleft=i % across == 0, length=2, labelsize=7
        )
    for ax in grid.flat[len(errors) :]:
        ax.set_visible(False)
    part.supxlabel("confidence (%)", fontsize=8, y=0.04 / style.inches(part)[1], va="bottom")
    part.supylabel("accuracy (%)", fontsize=8, x=0.08 / style.inches(part)[0])


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Bins of several pairs -> (label, bin): the bins of all their samples."""
    weighted = rows.assign(**{key: rows[key] * rows["n"] for key in ("confidence", "accuracy")})
    sums = weighted.groupby(["label", "bin"])[["n", "confidence", "accuracy"]].sum()
    return sums.assign(confidence=sums["confidence"] / sums["n"], accuracy=sums["accuracy"] / sums["n"])


def _panel(ax: Axes, rows: pd.DataFrame, bins: pd.DataFrame, colour: str) -> None:
    if rows["pair"].nunique() > 1:
        held = rows[rows["n"] >= FEW]
        thin = [pair[["confidence", "accuracy"]].to_numpy() for _, pair in held.groupby("pair")]
        ax.add_collection(LineCollection(thin, colors=colour, linewidths=0.5, alpha=0.4))
    line = bins[bins["n"] >= FEW]
    ax.plot(line["confidence"], line["accuracy"], color=colour, linewidth=1.3)
    sizes = 2 + 60 * bins["n"] / bins["n"].sum()
    ax.scatter(bins["confidence"], bins["accuracy"], s=sizes, c=colour, linewidths=0, zorder=3, clip_on=False)
