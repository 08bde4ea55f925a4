"""LaTeX tables: fragments to \\input into a document that loads booktabs and graphicx."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# letters side by side at each size, the table being shrunk a little; more columns continue in a further table
WIDE = {"footnotesize": (75, 125), "scriptsize": (90, 150)}  # in a column, over both
LONG, LEAST = 48, 12  # lines of one table with its notes, and rows at least; more continue in a further one
NOTES = {"table": 60, "table*": 125}  # letters of a note in a line
PACKAGES = r"% needs \usepackage{booktabs,graphicx}"
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # never enlarges

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "[": "{[}",
    "]": "{]}", "*": "{*}", "\0": "{}", "±": r"$\pm$", "×": r"$\times$", "✗": r"$\times$", "–": "--", "—": "---",
    "−": "$-$", "Δ": r"$\Delta$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$",
    "§": r"\S{}", "↓": r"$\downarrow$",
    "α": r"$\alpha$", "β": r"$\beta$", "τ": r"$\tau$", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
}  # fmt: skip


class Tex(str):
    """Text that is LaTeX already and is not escaped again."""


def escape(text: str) -> str:
    """Any text -> LaTeX that compiles and shows it; a letter that pdflatex lacks becomes a plain one or '?'."""
    if isinstance(text, Tex):
        return text
    text = text.replace("\0", "").replace("->", "→").replace("--", "-\0-")  # no ligature to a dash
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "−", text)
    return "".join(_ESCAPES.get(letter) or _letter(letter) for letter in text)


def _letter(letter: str) -> str:
    if letter.isascii() and letter.isprintable():
        return letter
    if letter.isspace():
        return " "
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    accented = "À" <= letter <= "ÿ" and (plain or letter in "ßØøÆæ")
    return letter if accented else plain or "?"


def bold(text: str) -> Tex:
    """Escape ``text`` and set it in bold."""
    return Tex(rf"\textbf{{{escape(text)}}}")


class Form(NamedTuple):
    """How a table is set.

    size: of its text, as LaTeX names it. upright: headings of several lines stand upright. groups: a name above each
    column, '' for none. top: how many of the rows are repeated at the head of each part, with a line below.
    """

    size: str = "footnotesize"
    upright: bool = False
    groups: Sequence[str] = ()
    top: int = 0


PLAIN = Form()


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    label: str,
    notes: Sequence[str] = (),
    form: Form = PLAIN,
) -> str:
    """A booktabs table that fits the line: shrunk where it must be, continued where it is too wide or long.

    It stands in a column of the page, or across both (table*) where it is wider or has long notes. header: one text
    per column, ``\\n`` where it may break; rows: one text per column each. The first column names the row: it is on
    the left of every part, the others are right-aligned. All texts are escaped but those of type `Tex`. Parts are
    labelled ``label``, ``label-2`` ...; the notes stand in the float of the last one.
    """
    seen = ["" if form.upright and "\n" in text else text for text in header]
    sizes = [2 + max(map(_size, texts)) for texts in zip(seen, *rows, strict=True)]
    column, whole = WIDE[form.size]
    kind = "table*" if sum(sizes) > column or _printed("table", notes) > LONG // 2 else "table"
    pages = _evenly(rows[form.top :], max(LONG - form.top - _printed(kind, notes), LEAST)) or [[]]
    parts = [(places, lines) for lines in pages for places in _wide(sizes, whole)]
    result = []
    for i, (places, lines) in enumerate(parts):
        number = f" (part {i + 1} of {len(parts)})" if len(parts) > 1 else ""
        above = [
            rf"\begin{{{kind}}}[tbp]",
            rf"\centering\{form.size}",
            *([r"\setlength{\tabcolsep}{3pt}"] if kind == "table*" else []),
            rf"\caption{{{escape(caption)}{number}}}",
            rf"\label{{{anchor(label)}{f'-{i + 1}' if i else ''}}}",
            r"\smallskip",
        ]
        below = small_print(notes) if notes and i + 1 == len(parts) else []
        body = _tabular(header, rows[: form.top], lines, places, form)
        result.append("\n".join([*above, *body, *below, rf"\end{{{kind}}}"]))
    return "\n\n".join(result) + "\n"


def _tabular(
    header: Sequence[str],
    top: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    places: Sequence[int],
    form: Form,
) -> list[str]:
    """The columns at these places; top: rows above a line."""
    above, below = ([_row([escape(row[c]) for c in places]) for row in each] for each in (top, rows))
    return [
        SHRINK,
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(places) - 1)}@{{}}}}",
        r"\toprule",
        *_group_row([form.groups[c] for c in places] if form.groups else []),
        _row([_heading(header[c], form.upright, left=not n) for n, c in enumerate(places)]),
        r"\midrule",
        *above,
        *([r"\midrule"] if above else []),
        *below,
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def _printed(kind: str, notes: Sequence[str]) -> int:
    """The lines of a table whose height the notes take."""
    return round(0.85 * sum(1 + _size(note) // NOTES[kind] for note in notes))


def _evenly(rows: Sequence, most: int) -> list[Sequence]:
    """The rows in as few pages of at most ``most`` as do, of nearly the same length."""
    pages = -(-len(rows) // most)
    ends = [round(len(rows) * page / pages) for page in range(pages + 1)] if pages else []
    return [rows[start:end] for start, end in itertools.pairwise(ends)]


def _group_row(groups: Sequence[str]) -> list[str]:
    """Names over the columns that share them, with a rule under each; nothing where there are none."""
    if not any(groups):
        return []
    entries, rules, place = [], [], 1
    for name, columns in itertools.groupby(groups):
        count = len(list(columns))
        entries.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(name)}}}")
        rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if name else []
        place += count
    return [_row(entries), "".join(rules)]


def small_print(notes: Sequence[str]) -> list[str]:
    """Notes as paragraphs of a small size."""
    return [r"{\par\smallskip\raggedright\scriptsize", *(rf"{escape(note)}\par" for note in notes), "}"]


def _wide(sizes: Sequence[int], most: int) -> list[list[int]]:
    """The columns of each part: as few parts as do, of nearly the same width, and in every part the first column."""
    first, *others = sizes
    middles = np.cumsum(others) - np.array(others) / 2
    for count in range(1, len(others) + 1):
        part = (middles * count / sum(others)).astype(int)
        if max(np.bincount(part, others)) <= most - first or count == len(others):
            return [[0, *(np.flatnonzero(part == p) + 1).tolist()] for p in np.unique(part)]
    return [[0]]


def _size(text: str) -> int:
    """The letters that are seen of the longest line, or nearly so."""
    seen = re.sub(r"\\[a-z]+|[{}$]", "", text) if isinstance(text, Tex) else text
    return max(len(line) for line in seen.split("\n"))


def _heading(text: str, upright: bool, left: bool) -> str:
    if "\n" not in text:
        return escape(text)
    lines = r"\\".join(escape(line) for line in text.split("\n"))
    stacked = rf"\shortstack[{'l' if left or upright else 'r'}]{{{lines}}}"
    return rf"\rotatebox{{90}}{{{stacked}}}" if upright else stacked


def _row(entries: Sequence[str]) -> str:
    return " & ".join(entries) + r" \\"


def anchor(text: str) -> str:
    """A text as the key of \\label: letters, digits and ``:.-`` alone."""
    return re.sub(r"[^A-Za-z0-9:.-]", "-", text)
