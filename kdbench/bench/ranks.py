"""Images per second of a cohort that one, two ... ranks train together, and what of a step is exchange and waiting.

That share is measured against one process that computes what one rank computes, its part of the batch, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from kdbench.bench.scaling import MAIN, Point, work_of
from kdbench.bench.workload import Work, made_up
from kdbench.runner.executors.ranks import train_on_ranks
from kdbench.suites import Suite
from kdbench.train.callbacks import Progress
from kdbench.utils import fresh_process
from kdbench.utils.environment import collect
from kdbench.utils.threads import thread_share

STEPS = {"cpu": 4, "cuda": 200}  # the first ones among them
COLUMNS = "pair cells batch_size ranks ms_step img_per_s exchange precision device threads torch".split()


def counts(device: str) -> list[int]:
    """One rank and two, and on GPUs every further doubling that there are GPUs for."""
    most = torch.cuda.device_count() if device.startswith("cuda") else 2
    return [number for number in (1, 2, 4, 8) if number <= most]


def milliseconds(work: Work, ranks: int, threads: int, steps: int) -> float:
    """Mean of the cohort's ``steps``, batches aside, on ``ranks`` ranks; call it in a fresh process."""
    torch.set_num_threads(threads)
    with made_up(work, steps) as job:
        results, _ = train_on_ranks(job, ranks, Progress(), lambda: False)
    return 1000 * results[0].row["cohort_s"] / steps


def table(
    suite: Suite,
    device: str,
    precision: str | None,
    numbers: Sequence[int],
    say: Callable[[str], None],
    point: Point = Point(MAIN),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """A row per number of ranks."""
    steps, threads = STEPS[torch.device(device).type], torch.get_num_threads()
    timed = work_of(suite, point, device, precision)
    rows: list[dict[str, Any]] = []
    for number in numbers:
        say(f"{number} ranks: {point.pair}, {point.cells} cells, batch {point.batch_size}")
        part = work_of(suite, replace(point, batch_size=point.batch_size // number), device, precision)
        own = fresh_process.call(milliseconds, part, 1, thread_share(threads, number), steps)
        ms = own if number == 1 else fresh_process.call(milliseconds, timed, number, threads, steps)
        rows.append(
            {
                "pair": point.pair,
                "cells": point.cells,
                "batch_size": point.batch_size,
                "ranks": number,
                "ms_step": ms,
                "img_per_s": 1000 * point.batch_size * point.cells / ms,
                "exchange": max(0.0, 1 - own / ms),
                "precision": timed.suite.recipe.precision,
                **collect(device),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)
