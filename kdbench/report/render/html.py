"""The report as one HTML page: no network, the pictures in its folder, the same bytes for the same rows.

The tables are plain HTML: they read without JavaScript, which adds sorting, filtering and the runs behind an entry.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from kdbench.report import reproducibility
from kdbench.report.columns import Column, Text, columns, said_below
from kdbench.report.figures.files import Picture
from kdbench.report.leaderboard import Board
from kdbench.report.notes import legend, notes
from kdbench.report.order import APPENDIX
from kdbench.report.render.html_data import details
from kdbench.report.tables import ARROW

FIRST = ("rank", "Δ vs")  # left of the pairs here: on a narrow screen these are seen first


def page(
    suite: str,
    boards: Sequence[Board],
    footer: Sequence[str],
    attempts: pd.DataFrame,
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    shown: Sequence[Picture],
) -> str:
    """index.html of one suite.

    attempts: all of them; curves: long form; runs: the frame of `reproducibility`; shown: the figures.
    """
    texts = [columns(board) for board in boards]
    data = details(boards, texts, attempts, curves)
    tables = [_table(i, *both, data["entries"]) for i, both in enumerate(zip(boards, texts, strict=True))]
    for i, table in enumerate(tables):
        table["figures"] = [picture for picture in shown if picture.table == i]
    return _template().render(
        suite=suite,
        tables=tables,
        legend=legend(boards[0].baseline),
        reproducibility=reproducibility.sentence(runs),
        differing=(reproducibility.HEADER, reproducibility.differing(runs)),
        appendix=APPENDIX,
        footer=footer,
        data=_script_safe(data),
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
    )


def _table(number: int, board: Board, table: Sequence[Column], known: Collection[str]) -> dict[str, Any]:
    """What the template draws of one board: heading, columns, rows of entries; ``known`` ones can be opened."""
    said = said_below(board)
    first = [column for start in FIRST for column in table if column.heading.startswith(start)]
    order = [table[0], *first, *(c for c in table[1:] if c not in first and c.heading not in said)]
    places = {pair: i for i, pair in enumerate(board.table.pairs)}
    rows = []
    for j, texts in enumerate(zip(*(column.entries for column in order), strict=True)):
        keys = [f"{number}-{j}-{places[c.pair]}" if c.pair else "" for c in order]
        rows.append(
            [_entry(text, key if key in known else "") for text, key in zip(texts, keys, strict=True)]
        )
    return {
        "heading": board.table.heading,
        "columns": [_heading(column) for column in order],
        "rows": rows,
        "notes": notes(board),
        "pairs": len(places),
    }


def _heading(column: Column) -> dict[str, Any]:
    lines = column.heading.replace(ARROW, " →\n").split("\n")
    return {"lines": lines, "pair": column.pair, "rank": column.heading == "rank"}


def _entry(text: Text, key: str) -> dict[str, Any]:
    value = (
        "" if np.isnan(text.value) else f"{text.value:.6g}".replace("inf", "Infinity")
    )  # as JavaScript has it
    return {"text": text.text, "after": text.after, "bold": text.bold, "value": value, "key": key}


def _script_safe(data: Any) -> Markup:
    """JSON that cannot end its script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _asset(name: str) -> str:
    return (resources.files("kdbench.report") / "assets" / name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    strict: Any = {"undefined": jinja2.StrictUndefined, "autoescape": True}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **strict)
    environment.filters["arrows"] = lambda text: str(text).replace("->", "→")
    return environment.from_string(_asset("page.html"))
