"""figures.tex: the figures for a paper with their captions, to \\input or to copy from."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.report.figures.files import Picture
from kdbench.report.figures.sheet import Drawn, Sheet
from kdbench.report.render.latex import SHRINK, anchor, escape

GRAPHICX = ("graphicx", r"\includegraphics", r"\graphicspath")
SVG = ("svg", r"\includesvg", r"\svgpath")
SHOWN = {"pdf": GRAPHICX, "png": GRAPHICX, "svg": SVG}  # format -> the package that shows it and its commands


def tex(suite: str, figures: Sequence[tuple[Picture, Drawn]], sheet: Sheet) -> str:
    """A float per figure, across both columns where it is wider than one; where its numbers come from as a comment."""
    kind = next(kind for kind in SHOWN if kind in sheet.formats)
    package, shown, path = SHOWN[kind]
    parts = [rf"% needs \usepackage{{{package}}}, and {path} to this folder where the document is in another"]
    for picture, figure in figures:
        title, reading, provenance = figure.facts
        float_ = "figure*" if figure.get_figwidth() > sheet.column + 0.5 else "figure"
        lines = [
            *([f"% {provenance}"] if provenance else []),
            rf"\begin{{{float_}}}[tbp]",
            r"\centering",
            SHRINK,
            rf"{shown}{{{picture.name}.{kind}}}}}",
            rf"\caption{{{escape(title)}. {escape(reading)}}}",
            rf"\label{{fig:{anchor(suite)}-{anchor(picture.name)}}}",
            rf"\end{{{float_}}}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
