"""`kdbench status`: which cells are finished, failed and running."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench import suites
from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError
from kdbench.suites import Suite
from kdbench.utils import locks
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import fold

if TYPE_CHECKING:
    import pandas as pd


@verb("status", short_help="Show finished, failed and running cells.")
@options.results
def status_command(results: Path) -> None:
    """Show finished, failed and running cells for each suite."""
    failures: list[KdbenchError] = []
    click.echo(status(results, failures.append))
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)


def _raise(error: KdbenchError) -> None:
    raise error


def status(results: Path, unreadable: Callable[[KdbenchError], object] = _raise) -> str:
    """Per suite: its cells by status, what the suite itself still lacks, what failed; then what is running.

    ``unreadable`` is called with the error of each file that cannot be read.
    """
    from kdbench.results import store

    lines = []
    for name in store.suites(results):
        file = store.file_of(results, name)
        try:
            records, remedy = store.records(store.load(file)), store.upgrade_note(file)
        except KdbenchError as error:
            unreadable(error)
            lines.append(f"{name}: cannot be read")
        else:
            lines += [*_of_suite(name, records), *([f"  before `kdbench run`: {remedy}"] if remedy else [])]
    lines += _running(results)
    lines += _submitted(results)
    return "\n".join(fold(line, indent=4) for line in lines) or f"no results in {results}"


def _of_suite(name: str, records: pd.DataFrame) -> list[str]:
    counts = records["status"].value_counts()
    lines = [f"{name}: {', '.join(f'{counts[s]} {s}' for s in sorted(counts.index)) or 'no rows'}"]
    if name in suites.names():
        total, done = own_cells(suites.load(name), records)
        lines.append(f"  of the suite's own {total} cells: {done} done, {total - done} missing")
    for _, row in records[~records["status"].isin([Status.OK, Status.SKIPPED])].iterrows():
        pair = f"{row['teacher']} -> {row['student']}" if isinstance(row["teacher"], str) else row["student"]
        reason = f": {row['error']}" if isinstance(row["error"], str) else ""
        lines.append(f"  {row['status']}  {row['method']}, {pair}, seed {row['seed']}{reason}")
    return lines


def own_cells(suite: Suite, records: pd.DataFrame) -> tuple[int, int]:
    """How many cells the suite as it is written has on the test split, and how many of them are done."""
    from kdbench import registry
    from kdbench.plan.selection import select_methods

    registry.load()
    own = {
        (seed, pair.student, pair.teacher if registry.get(method).needs.teacher else "", method)
        for seed in suite.seeds
        for pair in suite.pairs
        for method in select_methods(None, suite.methods)
    }
    rows = records[
        records["status"].isin(DONE)
        & (records["recipe_id"] == suite.recipe.id)
        & (records["split"] == "test")
        & (records["default"].astype(str) == "True")
    ]
    columns = (rows["seed"], rows["student"], rows["teacher"].fillna(""), rows["method"])
    return len(own), len(own & set(zip(*columns, strict=True)))


def _running(results: Path) -> list[str]:
    """A line per process that trains cells of these results."""
    starts: dict[tuple, list[float]] = {}
    for note in locks.running(results / ".work" / "locks").values():
        starts.setdefault((note["pid"], note["host"]), []).append(note["since"])
    lines = []
    for (pid, host), times in starts.items():
        minutes = (time.time() - min(times)) / 60
        cells = "1 cell" if len(times) == 1 else f"{len(times)} cells"
        lines.append(f"running: {cells} in process {pid} on {host} for {minutes:.0f} min")
    return lines


def _submitted(results: Path) -> list[str]:
    """A line per job of a cluster whose results are not collected yet."""
    from kdbench.runner.executors.slurm import job_states

    return [
        f"slurm: job {job}, {cells} cells: {state}; collected by the command that submitted it"
        for job, cells, state in job_states(results / ".work" / "slurm")
    ]
