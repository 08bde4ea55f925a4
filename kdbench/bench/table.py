"""`kdbench bench`: the step of a cohort compared with that of a conventional loop, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd
import torch

from kdbench.bench import reference_loop
from kdbench.bench.background_load import background_load
from kdbench.bench.estimate import training_hours
from kdbench.bench.timing import Blocks, Seconds, mean_shares
from kdbench.bench.workload import Work, made_up
from kdbench.data.loading import load_split
from kdbench.train.recorded_steps import settled
from kdbench.utils import fresh_process
from kdbench.utils.environment import collect
from kdbench.utils.memory import peak_mb
from kdbench.utils.text import grid

WARMUP, ROUNDS = 2, 5
OURS, THEIRS = "kdbench", "plain"
SHARES = ("data", "teacher", "students", "losses")
PLACE = "kdbench git_commit git_dirty torch timm cuda device threads".split()
COLUMNS = (
    "suite pair loop jobs methods precision cached batch_size rounds steps ms ms_low ms_high img_per_s ratio ratio_low "
    "ratio_high data teacher students losses peak_mem_mb hours"
).split() + PLACE
READING = (
    "ms: a step of one cell, median over {rounds} rounds in turns [range]. ratio: the plain loop's cost of a cell over "
    "kdbench's in the same round, median [range]. losses: the formulas' forward alone; students: all else of a "
    "student's step; data: batches and the rest of the loop. MB: {memory}. hours: all epochs of these methods x "
    "{seeds} seeds, extrapolated from the timed steps, training alone. kdbench: {cells} cells side by side in each "
    "job; plain: one method a run, fp32, PIL images, {workers} loading processes. {device}, {threads} threads, torch "
    "{torch}."
)


def measure(work: Work, rounds: int, steps: int) -> tuple[list[Seconds], list[list[Seconds]]]:
    """Blocks of ``steps`` steps of the cohort; and, round by round, one block of each method's plain loop.

    Where ``work`` has several jobs, the others' cohorts train while this one's steps are timed, and rest in between.
    """
    warmup = max(WARMUP, settled(work.graphs))
    with (
        background_load(work, work.jobs - 1) as load,
        made_up(work, warmup + rounds * steps) as job,
    ):
        device = torch.device(job.device)
        train = load_split(job.cells[0].dataset, job.cells[0].split, job.data_dir).train
        runs = [reference_loop.ReferenceLoop(cell, job.teacher, train, device) for cell in job.cells]
        loader = reference_loop.batches(job)
        turns: list[list[Seconds]] = []

        def others() -> None:
            with load.paused():
                turns.append([run.block(loader, steps if turns else WARMUP) for run in runs])

        ours = Blocks(job, warmup, steps, others).run()
    return ours, turns[1:]  # the first turn was the warm-up


def ratios(ours: Sequence[Seconds], theirs: Sequence[Sequence[Seconds]], jobs: int = 1) -> list[float]:
    """Round by round, what a cell costs in the plain loop over what it costs in one of ``jobs`` cohorts."""
    return [jobs * _sum(turn) / block.total for block, turn in zip(ours, theirs, strict=True)]


def peak(work: Work, loop: str) -> float:
    """Peak memory in MiB of a few steps of the cohort or of one method's plain loop; call it in a fresh process."""
    warmup = max(WARMUP, settled(work.graphs))
    with made_up(work, warmup + 2) as job:  # the last step is not recorded
        if loop == OURS:
            Blocks(job, warmup, 1).run()
        else:
            cell = next((cell for cell in job.cells if cell.teacher), job.cells[0])
            train = load_split(cell.dataset, cell.split, job.data_dir).train
            run = reference_loop.ReferenceLoop(cell, job.teacher, train, torch.device(job.device))
            run.block(reference_loop.batches(job), WARMUP + 1)
    return peak_mb(torch.device(work.device))


def rows(work: Work, steps: int, seeds: int, images: int | None) -> list[dict[str, Any]]:
    """One row for the cohort and one for the plain loop, each timed for ``steps`` steps.

    ``images``: of a whole epoch, for the hours that ``seeds`` seeds take; None where unknown.
    """
    rounds = min(ROUNDS, steps)
    block = steps // rounds
    ours, theirs = measure(work, rounds, block)
    cells, recipe = len(theirs[0]), work.suite.recipe
    place = {key: value for key, value in collect(work.device).items() if key in PLACE}
    # loop, jobs, precision, cached, seconds of a cell in each round, ratio of each round, blocks
    sides: list[tuple[str, int, str, bool, list[float], list[float], list[Seconds]]] = [
        (
            OURS,
            work.jobs,
            recipe.precision,
            work.cached,
            [b.total / (cells * work.jobs) for b in ours],
            ratios(ours, theirs, work.jobs),
            ours,
        ),
        (THEIRS, 1, "fp32", False, [_sum(turn) / cells for turn in theirs], [1.0], list(chain(*theirs))),
    ]
    lines: list[dict[str, Any]] = []
    for loop, jobs, precision, cached, seconds, factors, blocks in sides:
        ms = [1000 * each / block for each in seconds]
        middle, memory = statistics.median(ms), fresh_process.call(peak, work, loop)
        row: dict[str, Any] = {
            "suite": work.suite.name,
            "pair": str(work.pair),
            "loop": loop,
            "jobs": jobs,
            "methods": ",".join(work.methods),
            "precision": precision,
            "cached": cached,
            "batch_size": recipe.batch_size,
            "rounds": rounds,
            "steps": rounds * block,
            "ms": middle,
            "ms_low": min(ms),
            "ms_high": max(ms),
            "img_per_s": 1000 * recipe.batch_size / middle,
            "ratio": statistics.median(factors),
            "ratio_low": min(factors),
            "ratio_high": max(factors),
            "peak_mem_mb": memory,
            "hours": None,
        }
        if images is not None:
            row["hours"] = training_hours(middle, images, recipe.batch_size, recipe.epochs, cells * seeds)
        lines.append({**row, **mean_shares(blocks), **place})
    return lines


def _sum(blocks: Sequence[Seconds]) -> float:
    return sum(block.total for block in blocks)


def text(table: pd.DataFrame, seeds: int) -> str:
    """The rows for a terminal, and how to read them."""
    lines: list[Sequence[str]] = [
        ("pair", "loop", "precision", "ms a step a cell", "images/s", "ratio", *SHARES, "MB", "hours")
    ]
    for row in table.to_dict("records"):
        ratio = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
        lines.append(
            (
                row["pair"],
                _loop(row),
                row["precision"],
                f"{row['ms']:.1f} [{row['ms_low']:.1f}, {row['ms_high']:.1f}]",
                f"{row['img_per_s']:.0f}",
                ratio if row["loop"] == OURS else "1",
                *(f"{row[share]:.0%}" for share in SHARES),
                f"{row['peak_mem_mb']:.0f}",
                "–" if pd.isna(row["hours"]) else f"{row['hours']:.2f}",
            )
        )
    return f"{grid(lines)}\n\n{_reading(table.iloc[0], seeds)}"


def _loop(row: Mapping[Hashable, Any]) -> str:
    jobs = f", {row['jobs']} jobs" if row["jobs"] > 1 else ""
    return row["loop"] + jobs + (", teacher cached" if row["cached"] else "")


def _reading(row: pd.Series, seeds: int) -> str:
    gpu = isinstance(row["cuda"], str)
    return READING.format(
        rounds=row["rounds"],
        memory="the most that torch reserved on the GPU"
        if gpu
        else "the most of a process, torch itself included",
        seeds=seeds,
        cells=len(row["methods"].split(",")),
        workers=reference_loop.workers(),
        device=row["device"],
        threads=row["threads"],
        torch=row["torch"],
    )
