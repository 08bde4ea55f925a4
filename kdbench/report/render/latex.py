"""LaTeX tables: fragments to \\input into a document that loads booktabs and graphicx."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from kdbench.report import notes as words
from kdbench.report.columns import Column, columns, said_below
from kdbench.report.leaderboard import Board
from kdbench.report.order import APPENDIX
from kdbench.report.tables import ARROW

WIDE = 100  # characters side by side; more columns continue in a further table
LONG = 45  # rows of one table; more continue in a further one
PACKAGES = r"% needs \usepackage{booktabs,graphicx}"
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # never enlarges

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "[": "{[}",
    "]": "{]}", "*": "{*}", "\0": "{}", "±": r"$\pm$", "×": r"$\times$", "✗": r"$\times$", "–": "--", "—": "---",
    "−": "$-$", "Δ": r"$\Delta$", "†": r"$\dagger$",
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


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    label: str,
    notes: Sequence[str] = (),
) -> str:
    """A booktabs table that fits the line: shrunk where it must be, continued where it is too wide or long.

    header: one text per column, ``\\n`` where it may break; rows: one text per column each. The first column names
    the row: it is on the left of every part, the others are right-aligned. All texts are escaped but those
    of type `Tex`. Parts are labelled ``label``, ``label-2`` ...; the notes follow the last one.
    """
    pages = [rows[i : i + LONG] for i in range(0, len(rows), LONG)] or [[]]
    parts = [(places, page) for page in pages for places in _wide(header, rows)]
    result = []
    for i, (places, page) in enumerate(parts):
        number = f" (part {i + 1} of {len(parts)})" if len(parts) > 1 else ""
        lines = [
            r"\begin{table}[htbp]",
            r"\centering\footnotesize",
            rf"\caption{{{escape(caption)}{number}}}",
            rf"\label{{{anchor(label)}{f'-{i + 1}' if i else ''}}}",
            r"\smallskip",
            SHRINK,
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(places) - 1)}@{{}}}}",
            r"\toprule",
            _row([_heading(header[c], left=not n) for n, c in enumerate(places)]),
            r"\midrule",
            *(_row([escape(row[c]) for c in places]) for row in page),
            r"\bottomrule",
            r"\end{tabular}}",
            *(_small_print(notes) if notes and i + 1 == len(parts) else []),
            r"\end{table}",
        ]
        result.append("\n".join(lines))
    return "\n\n".join(result) + "\n"


def leaderboard(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """leaderboard.tex: the main table, its notes below it; how to read it and the provenance at the end."""
    end = _small_print([*words.legend(boards[0].baseline), *footer])
    return "\n".join([PACKAGES, *_board(suite, boards[0], 0), *end]) + "\n"


def appendix(suite: str, boards: Sequence[Board], footer: Sequence[str]) -> str:
    """leaderboard-appendix.tex: the other tables, each with its notes, and the provenance; '' where there is none."""
    parts = [part for i, board in enumerate(boards[1:], 1) for part in _board(suite, board, i)]
    return "\n".join([PACKAGES, f"% {APPENDIX}", *parts, *_small_print(footer)]) + "\n" if parts else ""


def _board(suite: str, board: Board, place: int) -> list[str]:
    said = said_below(board)
    shown = [column for column in columns(board) if column.heading not in said]
    caption = f"{suite}: {board.table.heading}. Top-1 (%), last epoch: mean ± std (seeds)."
    label = f"tab:{suite}{f'-{place + 1}' if place else ''}"
    return [table(_header(shown), _rows(shown), caption, label), *_small_print(words.notes(board))]


def _header(shown: Sequence[Column]) -> list[str]:
    return [column.heading.replace(ARROW, f"{ARROW.rstrip()}\n") for column in shown]


def _rows(shown: Sequence[Column]) -> list[list[str]]:
    lines = zip(*(column.entries for column in shown), strict=True)
    return [[Tex(text.marked(bold, escape)) for text in line] for line in lines]


def _small_print(notes: Sequence[str]) -> list[str]:
    return [r"{\par\smallskip\raggedright\scriptsize", *(rf"{escape(note)}\par" for note in notes), "}"]


def _wide(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """The columns of each part: as many as fit side by side, and in every part the first one."""
    sizes = [2 + max(map(_size, texts)) for texts in zip(header, *rows, strict=True)]
    parts = [[0]]
    for column in range(1, len(header)):
        if len(parts[-1]) > 1 and sum(sizes[c] for c in parts[-1]) + sizes[column] > WIDE:
            parts.append([0])
        parts[-1].append(column)
    return parts


def _size(text: str) -> int:
    """The letters that are seen of the longest line, or nearly so."""
    seen = re.sub(r"\\[a-z]+|[{}$]", "", text) if isinstance(text, Tex) else text
    return max(len(line) for line in seen.split("\n"))


def _heading(text: str, left: bool) -> str:
    if "\n" not in text:
        return escape(text)
    lines = r"\\".join(escape(line) for line in text.split("\n"))
    return rf"\shortstack[{'l' if left else 'r'}]{{{lines}}}"


def _row(entries: Sequence[str]) -> str:
    return " & ".join(entries) + r" \\"


def anchor(text: str) -> str:
    """A text as the key of \\label: letters, digits and ``:.-`` alone."""
    return re.sub(r"[^A-Za-z0-9:.-]", "-", text)
