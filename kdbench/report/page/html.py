"""The page of one suite: its choices in JSON, its main table in plain HTML too, the same bytes for the same rows.

The plain tables are what is read without JavaScript, or without the libraries beside the page.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.report import reproducibility
from kdbench.report.columns import columns, said_below
from kdbench.report.figures.files import Picture
from kdbench.report.leaderboard import Board
from kdbench.report.metrics import TOP1
from kdbench.report.notes import legend, notes
from kdbench.report.order import APPENDIX, slugs
from kdbench.report.page import assets, runs
from kdbench.report.page.views import view
from kdbench.report.tables import ARROW
from kdbench.utils.method_facts import shipped
from kdbench.utils.papers import FAMILIES

SCRIPTS = (
    "dom",
    "state",
    "table",
    "choices",
    "leaderboard",
    "classes",
    "compare",
    "charts",
    "details",
    "export",
    "start",
)
ABOVE = "../"


def page(
    suite: str,
    boards: Sequence[Board],
    footer: Sequence[str],
    attempts: pd.DataFrame,
    curves: pd.DataFrame,
    details: Sequence[Path],
    repeated: pd.DataFrame,
    shown: Sequence[Picture],
) -> str:
    """index.html of one suite.

    boards: of top-1, the main one first; attempts: all of them; curves: long form; details: folders of the
    predictions that runs saved; repeated: the frame of
    `reproducibility`; shown: the figures.
    """
    names = slugs([board.table for board in boards])
    tables = [
        _plain(board) | {"figures": [picture for picture in shown if picture.table == i]}
        for i, board in enumerate(boards)
    ]
    data = {
        "suite": suite,
        "tables": [
            {"key": name} | view(board, curves, details) for name, board in zip(names, boards, strict=True)
        ],
        "facts": _facts({method for board in boards for method in board.table.rows["method"]}),
        **runs.histories(boards, attempts, curves),
    }
    return assets.template("suite.html").render(
        suite=suite,
        title=f"{suite}: leaderboard",
        above=ABOVE,
        tables=tables,
        metric=TOP1.words,
        legend=legend(boards[0].baseline),
        reproducibility=reproducibility.sentence(repeated),
        differing=(reproducibility.HEADER, reproducibility.differing(repeated)),
        appendix=APPENDIX,
        footer=footer,
        data=assets.data(data),
        css=assets.markup("page.css"),
        **assets.uses("DataTable", "Plotly"),
        js=assets.markup(*(f"{name}.js" for name in SCRIPTS)),
    )


def _plain(board: Board) -> dict[str, Any]:
    """What the template writes of one board: heading, columns, rows of texts, notes."""
    said = said_below(board)
    table = [column for column in columns(board) if column.heading not in said]
    return {
        "heading": board.table.heading,
        "columns": [column.heading.replace(ARROW, " →\n").split("\n") for column in table],
        "rows": list(zip(*(column.entries for column in table), strict=True)),
        "notes": notes(board),
    }


def _facts(methods: Collection[str]) -> dict[str, dict[str, str]]:
    """Name -> what the shipped methods among these say of their origin."""
    known = shipped()
    return {
        name: {
            "family": facts.family or "",
            "uses": FAMILIES[facts.family] if facts.family else "",
            "title": facts.paper.title if facts.paper else "",
            "cited": facts.paper.cited if facts.paper else "",
            "address": facts.paper.address if facts.paper else "",
            "bibtex": facts.bibtex,
        }
        for name, facts in known.items()
        if name in methods
    }
