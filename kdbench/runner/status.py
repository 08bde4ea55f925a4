"""What results hold and what trains for them now, as text; without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench import suites
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.results.choice import span
from kdbench.runner.heartbeat import Beat, beating, cut_off
from kdbench.runner.paths import Paths
from kdbench.runner.submitted import job_states
from kdbench.suites import Suite
from kdbench.train.saved import checkpoints
from kdbench.utils import locks
from kdbench.utils.method_facts import matching, shipped
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import WIDTH, clock, fold, grid, run_name

SILENT = 60.0  # seconds after which a process that says nothing of itself is remarked on


def _raise(error: KdbenchError) -> None:
    raise error


def status(results: Path, unreadable: Callable[[KdbenchError], object] = _raise, cells: bool = False) -> str:
    """Per suite: its cells by status, what was recorded, what the suite's own matrix still lacks, what failed.

    Then what is running, was cut off or is saved.

    ``unreadable`` is called with the error of each file that cannot be read. cells: list every cell, too.
    """
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
            lines += _cells(records) if cells else []
    paths = Paths(results, "")
    lines += [*_running(paths), *_cut_off(paths), *_saved(paths), *_submitted(paths)]
    return "\n".join(fold(line, indent=4) for line in lines) or f"no results in {results}"


def _of_suite(name: str, records: pd.DataFrame) -> list[str]:
    counts = records["status"].value_counts()
    lines = [f"{name}: {', '.join(f'{counts[s]} {s}' for s in sorted(counts.index)) or 'no rows'}"]
    if len(records):
        lines.append(f"  {span(records)}")
    if name in suites.names():
        suite = suites.load(name)
        total, done = own_cells(suite, records)
        lines.append(
            f"  the suite itself, {len(_methods(suite))} methods x {len(suite.pairs)} pairs x {len(suite.seeds)} seeds "
            f"at {suite.recipe.epochs} epochs: {done} of {total} cells done"
        )
    for _, row in records[~records["status"].isin([Status.OK, Status.SKIPPED])].iterrows():
        reason = f": {row['error']}" if isinstance(row["error"], str) else ""
        epoch = f", after epoch {row['epochs_done']:g}" if row["status"] == Status.INTERRUPTED else ""
        lines.append(f"  {row['status']}  {_name(row)}{epoch}{reason}")
    return lines


def own_cells(suite: Suite, records: pd.DataFrame) -> tuple[int, int]:
    """How many cells a shipped suite has on the test split as it is written, and how many of them are done."""
    facts = shipped()
    own = {
        (seed, pair.student, pair.teacher if facts[name].needs.teacher else "", name)
        for seed in suite.seeds
        for pair in suite.pairs
        for name in _methods(suite)
    }
    rows = records[
        records["status"].isin(DONE)
        & (records["dataset"] == suite.dataset.shown)
        & (records["recipe_id"] == suite.recipe.id)
        & (records["split"] == "test")
        & (records["default"].astype(str) == "True")
    ]
    columns = (rows["seed"], rows["student"], rows["teacher"].fillna(""), rows["method"])
    return len(own), len(own & set(zip(*columns, strict=True)))


def _methods(suite: Suite) -> list[str]:
    return matching(suite.methods, list(shipped()))


def _cells(records: pd.DataFrame) -> list[str]:
    """A table with a line per cell, its id first."""
    rows: list[Sequence[str]] = [("cell", "status", "top-1", "epochs", "run")]
    for row in records.sort_values(["method", "variant", "seed"], kind="stable").to_dict("records"):
        top1 = f"{row['top1']:.2f}" if row["status"] == Status.OK else "–"
        epochs = "–" if pd.isna(row["epochs_done"]) else f"{row['epochs_done']:g}"
        rows.append((row["cell_id"], row["status"], top1, epochs, _name(row)))
    return [f"  {line}" for line in grid(rows, WIDTH - 2).split("\n")]


def _name(row: Mapping[str, Any]) -> str:
    """A row's run in words."""
    variant, teacher = (row[key] if isinstance(row[key], str) else "" for key in ("variant", "teacher"))
    return run_name(f"{row['method']} {variant}".strip(), teacher, row["student"], row["seed"])


def _running(paths: Paths) -> list[str]:
    """A line per process that trains for these results, with what it trains below it."""
    lines, known = [], set()
    for beat in beating(paths.running):
        known.add((beat.pid, beat.host))
        lines += _beat(beat)
    starts: dict[tuple, list[float]] = {}
    for note in locks.running(paths.locks).values():
        starts.setdefault((note["pid"], note["host"]), []).append(note["since"])
    for (pid, host), times in starts.items():
        if (pid, host) not in known:  # it has locked them and begins, or it cannot write what it does
            cells = "1 cell" if len(times) == 1 else f"{len(times)} cells"
            lines.append(f"running: {cells} in process {pid} on {host} for {_ago(min(times))}")
    return lines


def _beat(beat: Beat) -> list[str]:
    head = f"running: {beat.suite} in process {beat.pid} on {beat.host} for {_ago(beat.since)}"
    if beat.cells:
        head += f"; {beat.recorded} of {beat.cells} cells done"
    if beat.left is not None:
        head += f", about {clock(max(beat.left - (time.time() - beat.updated), 0))} left"
    if time.time() - beat.updated > SILENT:
        head += f"; nothing heard of it for {_ago(beat.updated)}"
    return [head, *(f"  {words}" for words in beat.cohorts)]


def _cut_off(paths: Paths) -> list[str]:
    """A line per process that died before its cells were done."""
    return [
        f"cut off: {beat.suite} in process {beat.pid} died with {beat.recorded} of {beat.cells} cells done; "
        "its command continues, typed again"
        for beat in cut_off(paths.running)
    ]


def _ago(start: float) -> str:
    return f"{(time.time() - start) / 60:.0f} min"


def _saved(paths: Paths) -> list[str]:
    """The checkpoints of cells that no process trains."""
    busy = locks.running(paths.locks)
    stopped = [saved for saved in checkpoints(paths.work) if saved.cell_id not in busy]
    if not stopped:
        return []
    return [
        "saved: the command that trained these cells continues them",
        *(f"  {saved} ({saved.suite}, cell {saved.cell_id})" for saved in stopped),
    ]


def _submitted(paths: Paths) -> list[str]:
    """A line per job of a cluster whose results are not collected yet."""
    return [
        f"slurm: job {job}, {cells} cells: {state}; collected by the command that submitted it"
        for job, cells, state in job_states(paths.slurm)
    ]
