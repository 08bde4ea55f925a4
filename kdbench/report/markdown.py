"""Markdown pages of one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def pipes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of markdown: the first column left-aligned, the others right-aligned."""
    lines = ["| " + " | ".join(map(escape, texts)) + " |" for texts in (header, *rows)]
    return "\n".join([lines[0], "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|", *lines[1:]])


def escape(text: str) -> str:
    """For an entry or a line of markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("->", "→")


def page(title: str, parts: Iterable[str], footer: Sequence[str]) -> str:
    """A title, paragraphs or tables, and the provenance."""
    return "\n\n".join([f"# {title}", *parts, "---", *footer]) + "\n"


def spread(mean: float, std: float, n: float, form: str = ".2f") -> str:
    """'71.20 ± 0.31 (3)'; no spread for one value, – for none."""
    if mean != mean:
        return "–"
    return f"{mean:{form}}" + (f" ± {std:{form}}" if n > 1 else "") + f" ({n:.0f})"


def interval(delta: float, low: float, high: float, form: str = "+.2f") -> str:
    """'+1.20 [+0.80, +1.60]'; no interval where there is none, – where there is no difference."""
    if delta != delta:
        return "–"
    return f"{delta:{form}}" + ("" if low != low else f" [{low:{form}}, {high:{form}}]")
