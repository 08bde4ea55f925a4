"""`kdbench bench scale`: cost against the size of cohort, batch and networks; and start-up times.

Every point is measured in a fresh process, so that its peak memory is its own. The cells of a point are kd at different
temperatures, which cost the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import kdbench
from kdbench import models
from kdbench.bench.timing import Blocks, mean_shares, now
from kdbench.bench.workload import Work, made_up, work
from kdbench.suites import Pair, Suite
from kdbench.train.recorded_steps import settled
from kdbench.utils import fresh_process
from kdbench.utils.environment import collect
from kdbench.utils.memory import peak_mb
from kdbench.utils.precision import tensor_cores

MAIN = "resnet56:resnet20"
CELLS = {
    MAIN: (1, 2, 3, 5, 8, 10, 12),
    "resnet32x4:resnet8x4": (1, 2, 5, 10),
    "wrn_40_2:wrn_16_2": (1, 2, 5, 10),
}
BATCHES = (16, 32, 128, 256)  # and 64
SIZES = ("resnet20:resnet8", "resnet110:resnet32", "vgg13:vgg8")  # and those of CELLS
SIDE, BATCH = 5, 64  # cells and batch where they are not what varies
WARMUP, ROUNDS = 3, 3
STEPS = {"cpu": 2, "cuda": 15}  # per round
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrix product that counts as the peak
COLUMNS = (
    "pair cells batch_size ms_step ms ms_low ms_high img_per_s data teacher students losses peak_mem_mb idle_mem_mb "
    "gflop_step tflop_per_s peak_tflop_per_s share_of_peak precision device threads torch"
).split()


@dataclass(frozen=True)
class Point:
    """``cells`` students of ``pair`` side by side."""

    pair: str
    cells: int = SIDE
    batch_size: int = BATCH


def points() -> list[Point]:
    """Every point to measure, once."""
    by_cells = [Point(pair, cells) for pair, counts in CELLS.items() for cells in counts]
    by_batch = [Point(MAIN, batch_size=size) for size in BATCHES]
    return by_cells + by_batch + [Point(pair) for pair in SIZES]


def work_of(suite: Suite, point: Point, device: str, precision: str | None, graphs: str = "") -> Work:
    """The work to time at a point: kd at temperatures 1, 2, ..."""
    teacher, _, student = point.pair.partition(":")
    pair, sets = Pair(teacher, student), {"kd": {"temperature": [float(t + 1) for t in range(point.cells)]}}
    return work(suite, pair, ["kd"], device, precision, point.batch_size, sets=sets, graphs=graphs)


def measure(work: Work, cells: int, steps: int) -> dict[str, Any]:
    """The row of one point, without the peak of the device; call it in a fresh process."""
    device = torch.device(work.device)
    idle = peak_mb(device)  # after all imports
    warmup = max(WARMUP, settled(work.graphs))
    with made_up(work, warmup + ROUNDS * steps) as job:
        blocks = Blocks(job, warmup, steps).run()
    batch = work.suite.recipe.batch_size
    ms = [1000 * block.total / steps for block in blocks]
    middle, flop = float(np.median(ms)), flop_per_step(work, cells)
    return {
        "pair": str(work.pair),
        "cells": cells,
        "batch_size": batch,
        "ms_step": middle,
        "ms": middle / cells,
        "ms_low": min(ms) / cells,
        "ms_high": max(ms) / cells,
        "img_per_s": 1000 * batch * cells / middle,
        **mean_shares(blocks),
        "peak_mem_mb": peak_mb(device),
        "idle_mem_mb": idle,
        "gflop_step": flop / 1e9,
        "tflop_per_s": flop / middle / 1e9,
        "precision": work.suite.recipe.precision,
    }


def flop_per_step(work: Work, cells: int) -> float:
    """Floating-point operations: a forward of the teacher, and three of each student (backward costs two)."""
    data = work.suite.dataset
    macs = {}
    for name in (work.pair.teacher, work.pair.student):
        spec = work.suite.model(name)
        macs[name] = models.macs(models.create(spec.arch, data.classes, **spec.args), data.size)
    return (
        2.0 * work.suite.recipe.batch_size * (macs[work.pair.teacher] + 3 * cells * macs[work.pair.student])
    )


def matrix_peak(device: str, precision: str) -> float:
    """TFLOP/s of a large matrix product in the precision, the best of 11."""
    place, kind = torch.device(device), torch.bfloat16 if precision == "bf16" else torch.float32
    size = MATRIX[place.type]
    a = torch.randn(size, size, device=place, dtype=kind)
    best = float("inf")
    for _ in range(11):
        start = now(place)
        with tensor_cores(precision):
            a @ a
        best = min(best, now(place) - start)
    return 2 * size**3 / best / 1e12


def table(
    suite: Suite,
    device: str,
    precision: str | None,
    which: Sequence[Point],
    say: Callable[[str], None],
    graphs: str = "",
) -> pd.DataFrame:
    """A row per point, with the peak of this device."""
    kind = torch.device(device).type
    peaks: dict[str, float] = {}
    rows = []
    for number, point in enumerate(which, 1):
        say(f"{number}/{len(which)}: {point.pair}, {point.cells} cells, batch {point.batch_size}")
        timed = work_of(suite, point, device, precision, graphs)
        used = timed.suite.recipe.precision
        if used not in peaks:
            peaks[used] = fresh_process.call(matrix_peak, device, used)
        row = fresh_process.call(measure, timed, point.cells, STEPS[kind])
        share = row["tflop_per_s"] / peaks[used]
        rows.append({**row, "peak_tflop_per_s": peaks[used], "share_of_peak": share, **collect(device)})
    return pd.DataFrame(rows, columns=COLUMNS)


FIRST_STEP = """
import os, sys
from kdbench import run
from kdbench.train.callbacks import Progress
class First(Progress):
    def step(self, images):
        os._exit(0)
run("digits", ["kd"], seeds=[0], results=sys.argv[1], progress=First())
os._exit(1)
"""


def starts(repeats: int = 3) -> pd.DataFrame:
    """Seconds that `kdbench --help` takes, and a run on digits to its first step (of the teacher's training)."""
    path = [str(Path(kdbench.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, command in {
            "kdbench --help": ["-m", "kdbench", "--help"],
            "kdbench run, to the first step": ["-c", FIRST_STEP, folder],
        }.items():
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *command], env=environment, cwd=folder, check=True, capture_output=True
                )
                seconds.append(time.perf_counter() - start)
            rows.append(
                {"what": what, "seconds": np.median(seconds), "low": min(seconds), "high": max(seconds)}
            )
    place = {key: value for key, value in collect("cpu").items() if key in ("device", "threads", "torch")}
    return pd.DataFrame(rows).assign(n=repeats, **place)
