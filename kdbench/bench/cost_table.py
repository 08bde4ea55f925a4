"""The table of what each method costs, as `kdbench bench methods` last wrote it."""

from __future__ import annotations

import csv
from pathlib import Path

FILE = Path("bench") / "method_cost.csv"  # in the folder of reports


def read(reports: Path) -> dict[str, tuple[int | None, float]]:
    """method -> (extra parameters, step time over kd's); empty where nothing was measured.

    None and nan: the method skips the pair that is timed. The csv module reads it: this table is shown by a command
    that must not wait for pandas.
    """
    if not (reports / FILE).is_file():
        return {}
    with open(reports / FILE, encoding="utf-8", newline="") as file:
        return {row["name"]: _cost(row) for row in csv.DictReader(file)}


def _cost(row: dict[str, str]) -> tuple[int | None, float]:
    extra = int(float(row["extra_params"])) if row["extra_params"] else None
    return extra, float(row["cost_x_kd"] or "nan")
