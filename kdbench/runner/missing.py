"""Which cells are done, and which are to be trained: by the rows of a results file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kdbench.plan.cells import Cell
from kdbench.results import store
from kdbench.results.attempts import Attempts
from kdbench.utils.status import DONE, Status


@dataclass(frozen=True)
class Missing:
    """Cells to train. ``tries``: how often each was tried when this was planned, by id."""

    cells: Sequence[Cell]
    tries: Mapping[str, int]


def find_missing(attempts: pd.DataFrame, cells: Sequence[Cell], force: bool = False) -> Missing:
    """Those of ``cells`` that have no finished row among ``attempts``; all of them with ``force``."""
    done = set() if force else done_ids(records_of(attempts, cells))
    missing = [cell for cell in cells if cell.id not in done]
    tried = count_tries(attempts)
    return Missing(missing, {cell.id: tried[cell.id] for cell in missing})


def untried(missing: Missing, attempts: Attempts, cells: Sequence[Cell]) -> list[Cell]:
    """Those of ``cells`` that no other process has tried since ``missing`` was planned; refreshes ``attempts``."""
    attempts.refresh()
    return [cell for cell in cells if attempts.tries(cell.id) == missing.tries[cell.id]]


def records_of(attempts: pd.DataFrame, cells: Iterable[Cell]) -> pd.DataFrame:
    """One row for each of ``cells`` that has any."""
    records = store.records(attempts)
    return records[records["cell_id"].isin([cell.id for cell in cells])]


def done_ids(records: pd.DataFrame) -> set[str]:
    """Ids of the cells that need not be trained again."""
    return set(records.loc[records["status"].isin(DONE), "cell_id"])


def count_tries(attempts: pd.DataFrame) -> Counter[str]:
    """Cell id -> how many rows it has, interrupted ones left out."""
    return Counter(attempts.loc[attempts["status"] != Status.INTERRUPTED, "cell_id"])
