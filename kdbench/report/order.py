"""Which of a suite's tables is its main one, and what the others' files are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kdbench import suites
from kdbench.report.tables import Table

APPENDIX = "Appendix: other recipes, splits, precisions and settings"


def main_first(tables: Sequence[Table], suite: str) -> list[Table]:
    """The main table, then those of the appendix in the same order of preference.

    Before others come: the test split; tables in which something was run with two seeds; the suite's own recipe (where
    no suite file of that name ships, the recipe with most runs); more finished runs of methods as the suite sets them.
    Equals stay as they are.
    """
    own = suites.load(suite).recipe.id if suite in suites.names() else _most_run(tables)

    def preference(table: Table) -> tuple[bool, bool, bool, int]:
        return table.split != "test", not table.repeated, table.recipe_id != own, -_runs(table)

    return sorted(tables, key=preference)


def _most_run(tables: Sequence[Table]) -> str:
    counts: dict[str, int] = {}
    for table in tables:
        counts[table.recipe_id] = counts.get(table.recipe_id, 0) + _runs(table)
    return max(counts, key=lambda recipe: counts[recipe], default="")


def _runs(table: Table) -> int:
    """Finished (method, pair, seed) with the suite's own parameters."""
    return int((table.finished["label"] == table.finished["method"]).sum())


def slugs(tables: Sequence[Table]) -> list[str]:
    """What ends the names of each table's files: '' for the first, 'holdout-30ep-fp32-c6849059' for another."""
    return ["" if table is tables[0] else _slug(table, tables[0].dataset) for table in tables]


def _slug(table: Table, usual: str) -> str:
    parts = [
        "" if table.dataset == usual else table.dataset,
        table.split,
        f"{table.epochs}ep",
        table.precision,
        table.recipe_id[:8],
        table.setting_id,
    ]
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts if part)


def size(table: Table) -> str:
    """'31 settings of 5 methods on 1 pair, 155 runs' (finished, each once)."""
    methods, pairs = table.rows["method"].nunique(), len(table.pairs)
    settings = f"{len(table.labels)} settings of " if len(table.labels) > methods else ""
    runs = table.finished["cell_id"].nunique()
    return f"{settings}{count(methods, 'method')} on {count(pairs, 'pair')}, {count(runs, 'run')}"


def count(number: int, name: str) -> str:
    """Return a number with its noun: '1 pair', '2 pairs'."""
    return f"{number} {name}{'s' * (number != 1)}"
