"""The choices of pairs for which all numbers of a table are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kdbench.report.render.paper_tables import family
from kdbench.report.tables import ARROW, Table


class Scope(NamedTuple):
    """A choice of pairs, and what it is called."""

    title: str
    pairs: tuple[str, ...]


def scopes(pairs: Sequence[str]) -> list[Scope]:
    """All pairs; those of one family and of two where there are several of each kind; each pair alone."""
    if len(pairs) == 1:
        return [Scope(pairs[0], tuple(pairs))]
    kinds = {
        "same family": tuple(pair for pair in pairs if _alike(pair)),
        "different families": tuple(pair for pair in pairs if not _alike(pair)),
    }
    several = [
        Scope(f"{title} ({len(own)})", own) for title, own in kinds.items() if 1 < len(own) < len(pairs)
    ]
    alone = [Scope(pair, (pair,)) for pair in pairs]
    return [Scope(f"all {len(pairs)} pairs", tuple(pairs)), *several, *alone]


def _alike(pair: str) -> bool:
    teacher, _, student = pair.partition(ARROW)
    return family(teacher) == family(student)


def restricted(table: Table, pairs: Sequence[str]) -> Table:
    """The table of these pairs alone."""
    return replace(table, rows=table.rows[table.rows["pair"].isin(pairs)])
