"""What figures are drawn on: sizes, and whether title and provenance are in the picture or in its file's metadata."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from kdbench.errors import unknown
from kdbench.report.figures.style import GREY

GAP = 0.12  # inches between two squares of a row
SMALL = 0.13  # inches of a line at the foot
# format -> how it is saved, and what its metadata call title, description and provenance
SAVED: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}, "pil_kwargs": {"compress_level": 9}},
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
FACTS = {
    "png": ("Title", "Description", "Source"),
    "svg": ("Title", "Description", "Source"),
    "pdf": ("Title", "Subject", "Keywords"),
}
FORMATS = tuple(SAVED)
RC: Any = {
    "svg.hashsalt": "kdbench",
    "pdf.fonttype": 42,  # TrueType: publishers refuse matplotlib's Type 3
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "ytick.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Sheet:
    """The sizes of a style, inches, and what every figure says.

    name: of the style. wide, high: of a figure at most; tall: of one that has a line per method or a row of pairs, and
    would else leave some out; column: of a column of text; panel: width of a figure that has
    one panel. words: whether title, reading and provenance are drawn; else they are metadata of the file, for a paper's
    caption says them. formats: of the files. aside: what a figure leaves out; provenance: where its numbers come from.
    """

    name: str
    wide: float
    high: float
    tall: float
    column: float
    panel: float
    words: bool
    formats: tuple[str, ...]
    aside: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()

    def saying(self, provenance: Sequence[str], aside: Sequence[str] = ()) -> Sheet:
        """The same sheet with this provenance and these lines on what is left out."""
        return dataclasses.replace(self, provenance=tuple(provenance), aside=tuple(aside))

    def drawing(self) -> Any:
        """The context in which figures are drawn and saved."""
        return matplotlib.rc_context(RC)

    def save(self, figure: Drawn, stem: Path) -> None:
        """Write one picture per format, free of dates and versions."""
        for kind in self.formats:
            saved = dict(SAVED[kind])
            if not self.words:
                saved["metadata"] = saved["metadata"] | dict(zip(FACTS[kind], figure.facts, strict=True))
            figure.savefig(stem.with_name(f"{stem.name}.{kind}"), **saved)


class Drawn(Figure):
    """A figure that knows its title, how it is read and where its numbers come from (`facts`)."""

    facts: tuple[str, str, str] = ("", "", "")


SCREEN = Sheet("screen", wide=7.0, high=8.0, tall=14.0, column=3.5, panel=7.0, words=True, formats=("png",))
PAPER = Sheet("paper", wide=6.9, high=4.5, tall=5.6, column=3.3, panel=3.3, words=False, formats=("pdf",))
STYLES = {sheet.name: sheet for sheet in (SCREEN, PAPER)}


def styled(name: str) -> Sheet:
    """The sheet of a style. Raises KdbenchError for an unknown one."""
    if name not in STYLES:
        raise unknown("style", name, STYLES, f"; --style takes {', '.join(STYLES)}")
    return STYLES[name]


class Canvas:
    """The room of one figure on a sheet. Its width is in inches; title and reading are as in `Sheet`.

    panels: their names. That of a single one belongs to the title where titles are not drawn.
    """

    def __init__(
        self, sheet: Sheet, width: float, title: str, reading: Sequence[str], panels: Sequence[str] = ()
    ) -> None:
        self.sheet, self.width, self.reading = sheet, width, [*reading]
        self.named = sheet.words or len(panels) > 1
        if panels and not self.named:
            title = f"{title}; {panels[0]}"
        self.title = "\n".join(textwrap.fill(line, int(width * 12.5)) for line in title.split("\n"))

    def top(self, named: float) -> float:
        """Inches above the panels, of which their names take most: ``named``, where there are any."""
        return named if self.named else 0.1

    @property
    def room(self) -> float:
        """Inches for the parts, one more line at the foot allowed for; at least half of the sheet."""
        return self._room(self.sheet.high)

    def room_for(self, height: float) -> float:
        """Inches for parts that would be so high: `room`, or as much more as they need and a tall figure has."""
        return min(max(self.room, height), self._room(self.sheet.tall))

    def _room(self, high: float) -> float:
        return max(high - self._head - self._foot(()) - SMALL, high / 2)

    def draw(self, heights: Sequence[float], said: Sequence[str] = ()) -> tuple[Drawn, list[SubFigure]]:
        """A figure of stacked parts of these heights (inches) between title and foot. said: further lines of reading.

        Places are given in inches, not found by a layout engine: the engines' last digits differ from run to run.
        """
        ends = [self._head, self._foot(said)] if self.sheet.words else [0.0, 0.0]
        figure = Drawn(figsize=(self.width, sum(heights) + sum(ends)))
        FigureCanvasAgg(figure)
        sheet = self.sheet
        reading = [*self.reading, *said, *sheet.aside]
        figure.facts = (" ".join(self.title.split()), " ".join(reading), " ".join(sheet.provenance))
        if not sheet.words:
            return figure, _stacked(figure, heights)
        head, *parts, foot = _stacked(figure, [ends[0], *heights, ends[1]])
        head.text(0.5, 1 - 0.08 / self._head, self.title, fontsize=9, ha="center", va="top")
        foot.text(0.1 / self.width, 0.5, self._text(said), fontsize=6.5, color=GREY, va="center")
        return figure, parts

    @property
    def _head(self) -> float:
        return 0.1 + 0.15 * (self.title.count("\n") + 1) if self.sheet.words else 0.0

    def _foot(self, said: Sequence[str]) -> float:
        return 0.2 + SMALL * (self._text(said).count("\n") + 1) if self.sheet.words else 0.0

    def _text(self, said: Sequence[str]) -> str:
        lines = [*self.reading, *said, *self.sheet.aside, *self.sheet.provenance]
        return "\n".join(textwrap.fill(line, int(self.width * 17)) for line in lines)

    def fit(
        self,
        count: int,
        edges: tuple[float, float],
        sides: tuple[float, float],
        step: Callable[[float], float],
        spare: float = 0.0,
    ) -> tuple[int, int, float]:
        """Squares in a row, rows, and a square's side (inches): the largest side for their number that the room allows.

        edges: inches left of the rows, and above and below all of them; sides: the least and the largest; step: side ->
        height from one row to the next; spare: share of what step adds to the side that the last row does not need.
        Where not all fit at the least side, a tall figure has as many as fit.
        """
        (left, ends), (least, most) = edges, sides
        width = self.width - left
        widest = max(1, int(width / (least + GAP)))
        for across in range(min(count, 4), widest + 1):
            side, down = min(width / across - GAP, most), -(-count // across)
            if step(side) * down - spare * (step(side) - side) <= self.room - ends:
                return -(-count // down), down, side  # rows evenly filled
        side = min(width / widest - GAP, most)
        last = spare * (step(side) - side)
        needed = -(-count // widest)
        room = self.room_for(step(side) * needed - last + ends) - ends
        return widest, max(1, min(needed, int((room + last) / step(side) + 1e-9))), side


def _stacked(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0, squeeze=False)
    return list(parts[:, 0])


def absent(labels: Iterable[str], shown: Iterable[str], why: str) -> list[str]:
    """What a figure says of the methods that it has not at all; ``why``: what it has of the others."""
    missing = [label for label in labels if label not in set(shown)]
    return [f"Not in this figure, without {why}: {', '.join(missing)}."] if missing else []


def left_out(shown: int, total: int, what: str, also: str = "") -> list[str]:
    """What a figure says that has no room for all; ``also``: where else they are."""
    has = "have" if also else "has"
    verb = "is" if shown == 1 else "are"
    said = f"The first {shown} of {total} {what} {verb} drawn; {also}the .csv of this figure {has} all."
    return [said] if shown < total else []


def save_data(frame: pd.DataFrame, file: Path) -> None:
    """The frame as CSV, eight digits a number."""
    frame.to_csv(file, index=False, lineterminator="\n", float_format="%.8g")
