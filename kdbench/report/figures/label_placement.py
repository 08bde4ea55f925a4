"""Names near points without covering each other, the points or the lines: greedy, the same for the same points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kdbench.report.figures import style

RADII = (5, 8, 12, 17, 23, 30, 38, 48, 60, 75)  # of a label's near edge from its point, in pixels
ANGLES = np.arange(16) * np.pi / 8
POINT = 3.0  # half the size that a marker needs, in pixels


def place(
    ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str], lines: np.ndarray, size: float = 7
) -> None:
    """Write each name that is not empty near its point (data coordinates); a thin line leads to one that had to go far.

    lines: [n, 4] horizontal or vertical lines to keep clear of, as x, y of both ends. Call it when the axes' limits
    and scales are set. The points of the most crowded places choose first, the nearest free place; where none is
    free, the place that covers least.
    """
    points = ax.transData.transform(np.column_stack([x, y]))
    ends = [ax.transData.transform(lines[:, part]) for part in (slice(0, 2), slice(2, 4))]
    taken = np.vstack(
        [
            np.hstack([points - POINT, points + POINT]),  # boxes: left, bottom, right, top
            np.hstack([np.minimum(*ends) - 0.5, np.maximum(*ends) + 0.5]),
        ]
    )
    frame = np.array(ax.get_window_extent().extents)
    apart = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)
    canvas = ax.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    for i in np.argsort(apart[:, 1:6].sum(axis=1), kind="stable"):
        if not names[i]:
            continue
        text = ax.text(0, 0, names[i], fontsize=size, ha="center", va="center")
        extent = text.get_window_extent(canvas.get_renderer())
        candidates = _candidates(points[i], extent.width + 2, extent.height)
        cost = _overlap(candidates, taken).sum(axis=1) + 1e3 * _outside(candidates, frame)
        best = int(np.argmin(cost + 1e-3 * np.repeat(RADII, len(ANGLES))))
        box = candidates[best]
        taken = np.vstack([taken, box])
        across, up = ax.transData.inverted().transform((box[:2] + box[2:]) / 2)
        text.set_position((across, up))
        if RADII[best // len(ANGLES)] > 12:
            _lead(ax, points[i], box)


def _candidates(point: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes [radii x angles, 4] whose nearest edge or corner is a radius away from the point."""
    radius = np.repeat(RADII, len(ANGLES))[:, None]
    way = np.tile(np.column_stack([np.cos(ANGLES), np.sin(ANGLES)]), (len(RADII), 1))
    half = np.array([width, height]) / 2
    centre = point + radius * way + half * np.clip(way * 1.5, -1, 1)
    return np.hstack([centre - half, centre + half])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n, 4], [m, 4] -> [n, m] shared areas."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _outside(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    beyond = np.hstack([boxes[:, :2] < frame[:2], boxes[:, 2:] > frame[2:]])
    return np.asarray(beyond.any(axis=1))


def _lead(ax: Axes, point: np.ndarray, box: np.ndarray) -> None:
    """A line from the point to the nearest place of the box."""
    line = ax.transData.inverted().transform([point, np.clip(point, box[:2], box[2:])])
    ax.plot(*line.T, color=style.GREY, linewidth=0.4, zorder=0)
