"""How figures look, and how they are saved so that the same rows give the same bytes."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

# Okabe and Ito's colours for the colour-blind, without the yellow that vanishes on white.
PALETTE = ["#56B4E9", "#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#000000"]
SALT = 104933  # black for kd; ce, dkd, mlkd, ctkd, bickd and dist have the six other colours
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))]
MARKERS = "os^DvP*"  # 7 and 4 dashes: 28 kinds of line in grey
GREY = "#666666"
WIDE, HIGH = 7.0, 8.0  # inches of a figure at most: a column of a page, a screen
FEW = 4
GAP, MOST_ACROSS = 0.12, 9  # inches between two squares of a row, and squares in it at most
SAVED: dict[str, dict[str, Any]] = {  # format of a picture -> how it is saved
    "png": {"dpi": 150, "metadata": {"Software": None}, "pil_kwargs": {"compress_level": 9}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
FORMATS = tuple(SAVED)
RC: Any = {
    "svg.hashsalt": "kdbench",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "legend.frameon": False,
}


def colour(label: str) -> str:
    """The method's colour, the same in every figure: by its name alone, whatever the user set."""
    return PALETTE[zlib.crc32(f"{SALT}{label.split()[0]}".encode()) % len(PALETTE)]


def ink(background: Sequence[float]) -> str:
    """Black or white, whichever reads better on this RGB colour (its relative luminance decides)."""
    red, green, blue = background[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def title(pair: str, most: int = 34) -> str:
    """teacher -> student, on two lines, or more where a name is longer than ``most`` characters."""
    halves = pair.replace(" -> ", " →\n").split("\n")
    return "\n".join(textwrap.fill(half, most) for half in halves)


def lines(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """label -> colour, and a pair of dash and marker that no other of (28) labels in this figure has."""
    return {
        label: {"color": colour(label), "linestyle": DASHES[i % 4], "marker": MARKERS[i % 7]}
        for i, label in enumerate(sorted(labels))
    }


def canvas(width: float, heights: Sequence[float], footer: Sequence[str]) -> tuple[Figure, list[SubFigure]]:
    """A figure of stacked parts of these heights (inches), with the provenance at its foot.

    Places are given in inches, not found by a layout engine: the engines' last digits differ from run to run.
    """
    text = _folded(width, footer)
    foot = _foot(text)
    figure = Figure(figsize=(width, sum(heights) + foot))
    FigureCanvasAgg(figure)
    ratios = [*heights, foot]
    parts = list(figure.subfigures(len(ratios), 1, height_ratios=ratios, hspace=0, squeeze=False)[:, 0])
    parts[-1].text(0.1 / width, 0.5, text, fontsize=6.5, color=GREY, va="center")
    return figure, parts[:-1]


def room(footer: Sequence[str], width: float = WIDE) -> float:
    """Inches that a figure of ``width`` x HIGH has above its footer and one more line; at least half of HIGH."""
    return max(HIGH - _foot(_folded(width, footer)) - 0.13, HIGH / 2)


def fit(
    count: int, room: float, edge: float, most: float, step: Callable[[float], float], spare: float = 0.0
) -> tuple[int, int, float]:
    """Squares in a row, rows, and a square's side (inches): the largest side for their number that the room allows.

    edge: width left of the row; most: side at most; step: side -> height from one row to the next; spare: share of what
    step adds to the side that the last row does not need.
    """
    for across in range(min(count, 4), MOST_ACROSS + 1):
        side, down = min((WIDE - edge) / across - GAP, most), -(-count // across)
        last = spare * (step(side) - side)
        if step(side) * down - last <= room:
            return -(-count // down), down, side  # rows evenly filled
    return across, max(1, int((room + last) / step(side))), side


def _folded(width: float, footer: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(line, int(width * 17)) for line in footer)


def _foot(text: str) -> float:
    return 0.2 + 0.13 * (text.count("\n") + 1)


def left_out(shown: int, total: int, what: str, also: str = "") -> list[str]:
    """What a figure says that has no room for all; ``also``: where else they are."""
    has = "have" if also else "has"
    said = f"The first {shown} of {total} {what} are drawn; {also}the .csv of this figure {has} all."
    return [said] if shown < total else []


def main(labels: Iterable[str]) -> list[str]:
    """The labels that a figure of all methods shows, sorted: each method as the suite sets it.

    A method that was never run so is there with its other settings, where these are at most FEW.
    """
    settings: dict[str, list[str]] = {}
    for label in sorted(labels):
        settings.setdefault(label.split()[0], []).append(label)
    return [
        label
        for method, own in settings.items()
        for label in ([method] if method in own else own if len(own) <= FEW else [])
    ]


def reach(deltas: pd.Series) -> float:
    """How far from 0 a panel of differences goes: to the largest, or to twice what nine in ten reach.

    The second where a few methods fail by far: the others, not the failures, should stay distinct.
    """
    size = deltas.abs().dropna()
    if not len(size):
        return 1.0
    return float(min(size.max(), max(2 * size.quantile(0.9), 0.1))) or 1.0


def folded(width: float, text: str) -> str:
    """A heading's lines, broken where they are wider than a figure of this width, inches."""
    return "\n".join(textwrap.fill(line, int(width * 12.5)) for line in text.split("\n"))


def heading(part: SubFigure, text: str) -> None:
    """A line of text at the top of the part."""
    part.text(0.5, 1 - 0.08 / inches(part)[1], text, fontsize=9, ha="center", va="top")


def grid(
    part: SubFigure, shape: tuple[int, int], box: tuple[float, float, float, float], gap: float, **more: Any
) -> np.ndarray:
    """Axes in ``box`` = (left, right, top, bottom), inches from the part's edges, rows ``gap`` inches apart.

    Columns are ``across`` inches apart, else as far as their tick labels need. ``more``: height_ratios and the
    arguments of `GridSpec.subplots`.
    """
    width, height = inches(part)
    left, right, top, bottom = box
    across = more.pop("across", 0.12 if more.get("sharey") else 0.45)
    spec = part.add_gridspec(
        *shape,
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=_share(across, width - left - right, shape[1]),
        hspace=_share(gap, height - top - bottom, shape[0]),
        height_ratios=more.pop("height_ratios", None),
    )
    return spec.subplots(squeeze=False, **more)


def inches(part: SubFigure) -> tuple[float, float]:
    """Width and height of a part."""
    dpi = part.figure.dpi
    return part.bbox.width / dpi, part.bbox.height / dpi


def _share(gap: float, total: float, count: int) -> float:
    """A gap in units of the mean size of ``count`` axes that fill ``total`` with such gaps between them."""
    return gap * count / (total - gap * (count - 1))


def save(figure: Figure, frame: pd.DataFrame, stem: Path, formats: Sequence[str] = FORMATS[:1]) -> None:
    """Write ``stem``.csv (what is drawn) and one picture per format, free of dates and versions."""
    for kind in formats:
        figure.savefig(stem.with_name(f"{stem.name}.{kind}"), **SAVED[kind])
    save_data(frame, stem.with_name(f"{stem.name}.csv"))


def save_data(frame: pd.DataFrame, file: Path) -> None:
    """The frame as CSV, eight digits a number."""
    frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
