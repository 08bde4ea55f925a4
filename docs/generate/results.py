"""The columns of results files, and the sources of the published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from docs.generate.markdown import code, table
from kdbench.results import published, schema
from kdbench.results.schema import Column


def columns() -> str:
    """A table per group of columns of results/<suite>.csv."""
    chapters = []
    for group, meaning in schema.GROUPS.items():
        members = [column for column in schema.ROWS if column.group == group]
        chapters += [f"### {group.capitalize()}", meaning, _table(members)]
    return "\n\n".join(chapters)


def curves() -> str:
    """The columns of results/<suite>.curves.csv."""
    return _table(schema.CURVES)


def trials() -> str:
    """The columns of results/<suite>.tuning.csv."""
    return _table(schema.TRIALS)


def _table(members: Iterable[Column]) -> str:
    rows = [
        [code(c.name), c.kind, c.doc, f"{_range(c)} {c.unit}", "yes" if c.filled else ""] for c in members
    ]
    return table(["column", "kind", "meaning", "values", "always filled"], rows)


def _range(column: Column) -> str:
    low, high = (f"{end:g}" if math.isfinite(end) else "" for end in (column.low, column.high))
    return f"{low} to {high}" if high else f"from {low}" if low else ""


def sources() -> str:
    """How many numbers each source gives, by the key that reports print."""
    rows = published.load()
    lines = []
    for key, group in rows.groupby("key", sort=False):
        where = min(group["source"], key=len)
        lines.append([key, len(group), ", ".join(sorted(set(group["dataset"]))), where])
    total = f"{len(rows):,} numbers of {rows['key'].nunique()} sources:"
    return f"{total}\n\n{table(['key', 'numbers', 'data sets', 'source'], lines, right=[1])}"
