"""Text for a terminal: columns and folded lines."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

WIDTH = 80


class Printed(str):
    """A text that a notebook shows as print does."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


def grid(rows: Iterable[Sequence[Any]], width: int | None = None) -> str:
    """Rows as left-aligned columns two spaces apart; the last column is folded to keep lines within ``width``."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        head = "".join(t.ljust(w + 2) for t, w in zip(row[:-1], widths, strict=False))
        lines.append(fold(head + row[-1], width, len(head)) if width else (head + row[-1]).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time in the unit that suits it: '20 s', '5 min', '3.2 hours', '12 days', '2.1 years'."""
    for size, name, most in ((1, "s", 90), (60, "min", 90), (3600, "hours", 48), (86400, "days", 730)):
        if seconds < size * most:
            count = seconds / size
            return f"{count:.1f} {name}" if name == "hours" else f"{count:.0f} {name}"
    return f"{seconds / (365.25 * 86400):.1f} years"


def fold(text: str, width: int | None = WIDTH, indent: int = 2) -> str:
    """A text on lines of at most ``width`` columns, the later ones indented; long words (paths, commands) stay whole.

    Its first ``indent`` characters are never changed.
    """
    if width is None or len(text) <= width:
        return text.rstrip()
    head, rest = text[:indent], text[indent:]
    parts = textwrap.wrap(rest, max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
    return "\n".join([head + parts[0], *(" " * indent + part for part in parts[1:])])


def run_name(method: str, teacher: str | None, student: str, seed: object) -> str:
    """One training run in words: 'kd, resnet56 -> resnet20, seed 0'. method: with its variant."""
    pair = f"{teacher} -> {student}" if teacher else student
    return f"{method}, {pair}, seed {seed}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 0:12:00."""
    return str(timedelta(seconds=round(seconds)))


def split_commas(text: str) -> list[str]:
    """``a,b`` -> ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]


def wrap(text: str, width: int = WIDTH, indent: int = 2) -> list[str]:
    """Lines of at most ``width`` columns, the later ones indented; for a narrow column: longer words are cut."""
    return textwrap.wrap(text, width, subsequent_indent=" " * indent)
