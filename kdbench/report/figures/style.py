"""What figures share: which methods they show, the words above panels, and places in inches."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import SubFigure

from kdbench.report.figures.looks import look

GREY = "#666666"
FEW = 4
LETTER = 0.054  # inches of a letter of 7 points, on average
READABLE = 7.0  # points of the smallest letters


def colour(label: str) -> str:
    """The method's colour, whatever the user set."""
    return look(label.split()[0]).color


def lines(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """label -> its colour, dash and marker as keywords of matplotlib, sorted."""
    return {label: look(label)._asdict() for label in sorted(labels)}


def ink(background: Sequence[float]) -> str:
    """Black or white, whichever reads better on this RGB colour (its relative luminance decides)."""
    red, green, blue = background[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def title(pair: str, most: int = 34) -> str:
    """teacher -> student, on two lines, or more where a name is longer than ``most`` characters."""
    halves = pair.replace(" -> ", " →\n").split("\n")
    return "\n".join(line for half in halves for line in _lines(half, most))


def _lines(text: str, most: int) -> list[str]:
    """Lines of at most ``most`` characters: broken at spaces, in a long word after _ - and . where it has them."""
    longest = max(text.split(), key=len, default="")
    parts = re.findall(r"[^_.-]+[_.-]*|[_.-]+", text) if len(longest) > most else [text]
    joined, lines = "", []
    for part in parts:
        if joined and len((joined + part).rstrip()) > most:
            lines.append(joined)
            joined = ""
        joined += part
    return [line for piece in [*lines, joined] for line in textwrap.wrap(piece, most)]


def of_pairs(counts: pd.Series, total: int) -> pd.Series:
    """What a figure says beside a mean that is over ``counts`` of all ``total`` pairs."""
    return counts.map(f"{{:.0f}} of {total} pairs".format)


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
