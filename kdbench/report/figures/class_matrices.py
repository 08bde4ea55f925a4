"""Class-by-class cosines of students with their teacher as heat maps, beside the teacher's own and the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from kdbench.report.figures import style
from kdbench.report.figures.class_similarity import TEACHER

SIDE = 1.3  # inches of a matrix at most
EDGE = 0.95  # inches above and below all of them
SMALLEST = 0.06  # inches of a class whose number can be read beside the first matrix


def draw(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> Figure:
    """The matrices of `similarity.measure`, of as many methods as fit: each above its difference to the baseline's."""
    reading = (
        "Cosine of the student's mean probability vector of one class (line) with the teacher's of another (column), "
        f"mean over seeds and common pairs; below, less {baseline}'s: purple is more alike, orange less. Number: mean "
        f"off the diagonal; the smallest is first, after the teacher with itself and {baseline}. Classes are "
        "ordered by hierarchical clustering of the teacher's matrix."
    )
    cosines = _cosines(data)
    means = {label: float(np.nanmean(c[~np.eye(len(c), dtype=bool)])) for label, c in cosines.items()}
    order = sorted(means, key=lambda label: (label != TEACHER, label != baseline, means[label], label))
    across, down, side = style.fit(len(order), style.room([reading, *footer]) - EDGE, 0.35, SIDE, _step)
    said = style.left_out(min(across * down, len(order)), len(order), "models")
    figure, (part,) = style.canvas(style.WIDE, [EDGE + _step(side) * down], [reading, *said, *footer])
    style.heading(part, f"Class-by-class similarity to the teacher: {data['table'].iloc[0]}")
    _draw(part, cosines, {label: means[label] for label in order[: across * down]}, baseline, across, side)
    return figure


def _cosines(block: pd.DataFrame) -> dict[str, np.ndarray]:
    groups = block.groupby("label")
    return {str(label): rows[[str(c) for c in rows["class"]]].to_numpy(float) for label, rows in groups}


def _step(side: float) -> float:
    """Inches from one row to the next: a matrix with its title above its difference."""
    return 2 * side + 0.5


def _draw(
    part: SubFigure,
    cosines: dict[str, np.ndarray],
    shown: dict[str, float],
    baseline: str,
    across: int,
    side: float,
) -> None:
    """shown: label -> its number, in order."""
    classes = class_order(cosines[TEACHER])
    sorted_ = np.ix_(classes, classes)
    base = cosines.get(baseline)
    gaps = {k: cosines[k] - base for k in shown if k != baseline} if base is not None else {}
    most = max(float(np.nanquantile(np.abs(gap), 0.995)) for gap in gaps.values()) if gaps else 1.0
    norms = PowerNorm(0.4, 0, 1), Normalize(-(most or 1.0), most or 1.0)
    height = style.inches(part)[1]
    for i, (label, mean) in enumerate(shown.items()):
        left, top = 0.25 + i % across * (side + style.GAP), height - 0.7 - i // across * _step(side)
        above = _matrix(part, (left, top - side, side), cosines[label][sorted_], "cividis", norms[0])
        above.axes.set_title(f"{style.title(label, 20)}\n{mean:.4f}", fontsize=min(7.0, 72 * side / 9), pad=3)
        if i == 0 and side >= SMALLEST * len(classes):
            above.axes.set_yticks(range(len(classes)), [str(c) for c in classes], fontsize=5.5)
            above.axes.tick_params(length=0, pad=1)
        if label in gaps:
            place = (left, top - 2 * side - 0.06, side)
            below = _matrix(part, place, gaps[label][sorted_], "PuOr", norms[1])
    _scale(part, above, 0.12, "cosine")
    if gaps:
        _scale(part, below, 0.57, f"less {baseline}'s", extend="both")


def _matrix(
    part: SubFigure, place: tuple[float, float, float], values: np.ndarray, cmap: str, norm: Normalize
) -> AxesImage:
    """An image whose lower left corner is at x, y and which has this side (place, inches)."""
    x, y, side = place
    width, height = style.inches(part)
    ax = part.add_axes((x / width, y / height, side / width, side / height), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax.imshow(values, cmap=cmap, norm=norm)


def _scale(part: SubFigure, image: AxesImage, left: float, name: str, **more: Any) -> None:
    """A colour bar at the part's foot; ``left``: of its width."""
    height = style.inches(part)[1]
    cax = part.add_axes((left, 0.36 / height, 0.3, 0.09 / height))
    bar = part.colorbar(image, cax=cax, orientation="horizontal", **more)
    bar.set_label(name, size=7, labelpad=1)
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]


def class_order(teacher: np.ndarray) -> np.ndarray:
    """[C, C] cosines of the teacher's classes -> classes, like ones side by side; as they are where one has no samples.

    The leaves of an average-linkage clustering by 1 - cosine.
    """
    distance = np.clip(1 - (teacher + teacher.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    if np.isnan(distance).any() or len(distance) < 3:
        return np.arange(len(distance))
    return hierarchy.leaves_list(hierarchy.linkage(squareform(distance, checks=False), "average"))
