"""Markdown from values: tables, code, and the blocks of a page that are generated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Block = Callable[[], str]
MARKED = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """A Markdown table; the columns ``right`` (from 0) are aligned to the right.

    >>> print(table(["name", "n"], [["a|b", 1]], right=[1]))
    | name | n |
    |---|---:|
    | a\\|b | 1 |
    """
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    lines = [_row(header), "|" + "|".join(rule) + "|", *map(_row, rows)]
    return "\n".join(lines)


def _row(values: Sequence[Any]) -> str:
    texts = (" ".join(str(value).split()).replace("|", "\\|") for value in values)
    return "| " + " | ".join(texts) + " |"


def code(value: Any) -> str:
    """Inline code; nothing for an empty text."""
    return f"`{value}`" if str(value) else ""


def prose(text: str) -> str:
    """Running text from a docstring or a help text, with what Markdown would interpret escaped outside inline code.

    >>> prose("DIR holds <name>.pth, or `a<b`")
    'DIR holds &lt;name>.pth, or `a<b`'
    """
    pieces = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = (piece.replace("<", "&lt;").replace("*", "\\*") for piece in pieces[::2])
    return "".join(itertools.chain.from_iterable(itertools.zip_longest(plain, pieces[1::2], fillvalue="")))


def fence(text: str, language: str = "text") -> str:
    """A fenced block."""
    return f"```{language}\n{text.strip()}\n```"


def fill(page: str, blocks: Mapping[str, Block]) -> str:
    """The page with each marked block written anew. Raises KeyError for a block that nothing generates.

    >>> fill("<!-- generated: x -->\\nold\\n<!-- end generated -->", {"x": lambda: "new"})
    '<!-- generated: x -->\\n\\nnew\\n\\n<!-- end generated -->'
    """
    return MARKED.sub(lambda match: f"{match[1]}\n{blocks[match['name']]()}\n\n{match[3]}", page)
