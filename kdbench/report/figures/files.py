"""The figures in a folder of reports: which there are, as data URIs for the page, and the old ones' removal."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

KINDS = ("svg", "png", "csv")  # a figure is these three files
LARGE = 1_000_000  # bytes of an SVG beyond which the page shows the PNG


class Caption(NamedTuple):
    """What a figure shows, and the place among the suite's tables of the one that it is about."""

    text: str
    table: int = 0


class Picture(NamedTuple):
    """A figure: the name of its files, its caption, and the picture as a data URI."""

    name: str
    text: str
    table: int
    source: str


def pictures(folder: Path, captions: Mapping[str, Caption]) -> list[Picture]:
    """All figures of the folder, ready for a page, in the order of ``captions`` (by name)."""
    names = _names(folder)
    ordered = [*(name for name in captions if name in names), *(n for n in names if n not in captions)]
    return [Picture(name, *captions.get(name, Caption(name)), _source(folder / name)) for name in ordered]


def clear(folder: Path) -> None:
    """Delete the figures of an earlier report: the rows that they show may have gone."""
    for name in _names(folder):
        for kind in KINDS:
            (folder / f"{name}.{kind}").unlink()


def _names(folder: Path) -> list[str]:
    stems = [{path.stem for path in folder.glob(f"*.{kind}")} for kind in KINDS]
    return sorted(set.intersection(*stems))


def _source(stem: Path) -> str:
    svg, png = (Path(f"{stem}.{kind}").read_bytes() for kind in ("svg", "png"))
    kind, data = ("png", png) if len(svg) > LARGE and len(png) < len(svg) else ("svg+xml", svg)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
