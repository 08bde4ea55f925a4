"""The figures in a folder of reports: their formats, what a page shows of them, and the removal of old ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kdbench.errors import KdbenchError, unknown
from kdbench.report.figures.sheet import FORMATS
from kdbench.utils.text import split_commas

SEEN = ("png", "svg")  # the formats that a browser and a markdown page can show
# Figures and, where they have one, their table; of the appendix with "-" and the name of the table or the method.
NAMES = (
    "forest", "heatmap", "cost", "sweep", "ablation", "curves", "calibration", "similarity", "published", "tuning",
    "slices",
)  # fmt: skip
KINDS = (*FORMATS, "csv", "md")


class Picture(NamedTuple):
    """A figure as a page names it: the name of its files, its caption, its formats, and the place of its table."""

    name: str
    text: str
    table: int
    formats: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """The names of its picture files."""
        return [f"{self.name}.{kind}" for kind in self.formats]

    @property
    def shown(self) -> str:
        """The file that a page shows; '' where none of the formats can be shown."""
        return next((f"{self.name}.{kind}" for kind in SEEN if kind in self.formats), "")


def checked(formats: str | Sequence[str]) -> tuple[str, ...]:
    """The formats, each once. Raises KdbenchError for none and for one that is not among FORMATS."""
    formats = split_commas(formats) if isinstance(formats, str) else formats
    if not formats:
        raise KdbenchError(
            f"no figure format is named; --format takes {', '.join(FORMATS)} (several: png,svg)"
        )
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", name, FORMATS, f"; --format takes {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def in_markdown(shown: Iterable[Picture]) -> list[str]:
    """The pictures as lines of a markdown page; of a picture that it cannot show, the names of the files."""
    return [
        f"![{picture.text}]({picture.shown})"
        if picture.shown
        else f"{picture.text} ({', '.join(picture.files)})"
        for picture in shown
    ]


def clear(folder: Path) -> None:
    """Delete the figures of an earlier report, whatever their format: the rows that they show may have gone."""
    for file in folder.iterdir():
        if file.suffix[1:] in KINDS and file.stem.partition("-")[0] in NAMES:
            file.unlink()
