"""Reliability diagrams: how often a method is right when it is so sure, one small panel a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kdbench.report import predictions
from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.report.tables import Table
from kdbench.results.statistics.sampling import ece_floor
from kdbench.utils.calibration import expected_calibration_error

COLUMNS = ["table", "label", "pair", "bin", "n", "confidence", "accuracy", "ece", "ece_std", "floor", "runs"]
FEW = 10  # samples that a bin must have to be joined to its neighbours
SIDES = 0.75, 1.6  # inches of a panel at least and at most
TOP, BOTTOM = 0.4, 0.45  # inches above and below all panels
BETWEEN = 0.42  # inches between two rows of panels: what two lines above a panel take


def frame(table: Table, folders: Sequence[Path]) -> pd.DataFrame:
    """One line a label (`style.main`), pair and bin (0..14, equal steps of confidence) that holds a sample.

    n, mean confidence and accuracy (percent): over all samples of the pair's seeds. ece, ece_std: mean and std
    (ddof 1) over its runs, points. floor: the mean of what a calibrated model with a run's confidences would show
    (`statistics.sampling.ece_floor`). Runs without a details file are left out.
    """
    rows = table.finished[table.finished["label"].isin(style.main(table.labels))]
    bins: dict[tuple, list[np.ndarray]] = {}
    for run, (counts,) in predictions.read(rows, folders, "calibration"):
        bins.setdefault((run["label"], run["pair"]), []).append(counts)
    parts = []
    for (label, pair), runs in bins.items():
        n, confidence, right = np.sum(runs, axis=0).T
        held = n > 0
        errors = pd.Series([expected_calibration_error(run) for run in runs])
        columns = {"bin": np.flatnonzero(held), "n": n[held].astype(int)}
        columns |= {"confidence": 100 * confidence[held] / n[held], "accuracy": 100 * right[held] / n[held]}
        one = pd.DataFrame(columns).assign(table=table.heading, label=label, pair=pair)
        one = one.assign(ece=errors.mean(), ece_std=errors.std(), runs=len(runs))
        parts.append(one.assign(floor=np.mean([ece_floor(run[:, 0], run[:, 1]) for run in runs])))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """One panel a method, as many as fit, the best calibrated first."""
    entries = data.drop_duplicates(["label", "pair"]).groupby("label")
    errors = entries["ece"].agg(["mean", "std", "count"]).sort_values("mean", kind="stable")
    errors["std"] = errors["std"].fillna(entries["ece_std"].first())
    floor = data.drop_duplicates(["label", "pair"])["floor"].mean()
    reading = (
        "On the diagonal confidence is accuracy; below it a method is overconfident. Markers: the bins of all "
        f"pairs and seeds, larger for more samples, joined from {FEW} samples on; thin: single pairs. Grey, dashed: "
        f"{baseline}. ECE: mean ± std over pairs (of one pair: over seeds), points; the smallest is first. A perfectly "
        f"calibrated model with such confidences on as many images would show about {floor:.1f}."
    )
    partial = errors["count"][errors["count"] < data["pair"].nunique()]
    if len(partial):
        where = ", ".join(f"{label} ({n:.0f})" for label, n in partial.items())
        reading += f" *: on fewer than all {data['pair'].nunique()} pairs: {where}."
    canvas = Canvas(sheet, sheet.wide, f"Reliability: {data['table'].iloc[0]}", [reading])
    across, down, side = canvas.fit(
        len(errors), (0.65, TOP + BOTTOM), SIDES, lambda side: side + BETWEEN, spare=1.0
    )
    said = left_out(min(across * down, len(errors)), len(errors), "methods")
    height = TOP + BOTTOM + side * down + BETWEEN * (down - 1)
    figure, (part,) = canvas.draw([height], said)
    grid = style.grid(part, (down, across), (0.5, 0.15, TOP, BOTTOM), BETWEEN, across=0.12)
    _panels(grid, data, errors[: across * down], baseline, int(side / style.LETTER))
    part.supxlabel("confidence (%)", fontsize=8, y=0.04 / style.inches(part)[1], va="bottom")
    part.supylabel("accuracy (%)", fontsize=8, x=0.08 / style.inches(part)[0])
    return figure


def _panels(grid: np.ndarray, data: pd.DataFrame, errors: pd.DataFrame, baseline: str, letters: int) -> None:
    """letters: of a line above a panel."""
    pairs, across = data["pair"].nunique(), grid.shape[1]
    bins = _pooled(data)
    base = bins.loc[bins.index.isin([baseline], level="label") & (bins["n"] >= FEW)]
    for i, (ax, (label, mean, std, n)) in enumerate(zip(grid.flat, errors.itertuples(), strict=False)):
        ax.set(xlim=(0, 100), ylim=(0, 100), xticks=[25, 50, 75], yticks=[0, 50, 100])
        ax.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.7, zorder=0)
        ax.plot(base["confidence"], base["accuracy"], color=style.GREY, linewidth=0.9, linestyle=(0, (4, 2)))
        _panel(ax, data[data["label"] == label], bins.loc[[str(label)]], style.colour(str(label)))
        spread = "" if np.isnan(std) else f" ± {std:.1f}"
        name = style.title(f"{label}{'*' * (n < pairs)}", letters)
        ax.set_title(f"{name}\nECE {mean:.1f}{spread}", fontsize=style.READABLE, pad=3)
        ax.tick_params(
            labelbottom=i + across >= len(errors),
            labelleft=i % across == 0,
            length=2,
            labelsize=style.READABLE,
        )
    for ax in grid.flat[len(errors) :]:
        ax.set_visible(False)


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
