"""A matrix of 20,000 cells with made-up results, planned, recorded and reported; what each part takes, as JSON.

`python -m tests.support.scale FOLDER [SEEDS]` in a process of its own, so that its peak memory is that of the driver;
fewer seeds than 50 are fewer cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch

from kdbench import registry
from kdbench.contract import toy_suite
from kdbench.plan.cells import Cell
from kdbench.runner import run as driver
from kdbench.runner import training
from kdbench.runner.executors.base import Done, now
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job, Result
from kdbench.utils.status import Status

METHODS, SEEDS, PAIRS, EPOCHS = 40, 50, 10, 4
TERMS = ("loss", "train_top1", "top1")
REPORT = """
import sys, time
from pathlib import Path
from kdbench import write_report
write_report("scale", *sys.argv[1:])
print(time.process_time(), Path("/proc/self/status").read_text("utf-8"))
"""


class MadeUp:
    """An executor whose results cost little; ``spent``: how many seconds of the processor."""

    name, slots, jobs = "processes", 8, 8
    spent = 0.0

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return []

    def submit(self, job: Job) -> Future[Done]:
        future, start = Future[Done](), time.process_time()
        results = [result(cell, len(job.cells)) for cell in job.cells]
        self.spent += time.process_time() - start
        future.set_result(Done(results, False, {"threads": 1, "started_utc": now()}))
        return future

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        return list(running)

    def __enter__(self) -> MadeUp:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def result(cell: Cell, cohort: int) -> Result:
    """What a trained cell gives, in form and about in size."""
    draw = np.random.default_rng(int(cell.id, 16))
    top1 = float(70 + draw.normal())
    row = {
        "status": Status.OK, "error": None, "epochs_done": EPOCHS, "cohort_size": cohort, "top1": top1,
        "top5": 90.0, "nll": 1.0, "ece": 5.0, "agree_teacher": 80.0, "kl_teacher": 0.5, "train_top1": 75.0,
        "top1_best": top1, "final_loss": 0.5, "tested": 1000, "train_s": 10.0, "teacher_s": 1.0, "data_s": 1.0,
        "eval_s": 1.0, "img_per_s": 1e4, "peak_mem_mb": 100.0, "student_params": 1000, "extra_params": 0,
        "macs": 10**6,
    }  # fmt: skip
    curves = [(epoch, term, float(draw.random())) for epoch in range(1, EPOCHS + 1) for term in TERMS]
    details = {
        "prediction": draw.integers(0, 4, 1000).astype(np.int16),
        "confidence": draw.random(1000, np.float32),
    }
    return Result(cell, row, curves, details, {"weight": torch.zeros(1000)})


class Clock(Progress):
    """Notes the processor's time when each row is announced, less what the executor spent."""

    def __init__(self, executor: MadeUp) -> None:
        self.executor = executor
        self.times: list[float] = []

    def say(self, text: str) -> None:
        if "top-1" in text and "seed" in text:
            self.times.append(time.process_time() - self.executor.spent)


def _count_syncs() -> list[float]:
    """One number: the seconds that the disk took in `os.fsync`, from now on."""
    waited, sync = [0.0], os.fsync

    def timed(file: int) -> None:
        start = time.perf_counter()
        sync(file)
        waited[0] += time.perf_counter() - start

    os.fsync = timed
    return waited


def peak_mib(status: str) -> float:
    """The peak memory in a /proc/PID/status; `getrusage` would count that of the parent which forked a process."""
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def suite_file(folder: Path) -> Path:
    """The toy suite with PAIRS pairs, and weights of its teachers in folder/teachers."""
    text, _, pair = toy_suite.FILE.read_text("utf-8").partition("[models]\n")
    models = pair.partition("[[pairs]]")[0]
    names = [f"teacher{number}" for number in range(PAIRS)]
    named = "".join(
        f'{name} = {{ arch = "resnet8", args = {{ widths = [8, 8, 8, 16] }} }}\n' for name in names
    )
    pairs = "".join(f'[[pairs]]\nteacher = "{name}"\nstudent = "student"\n' for name in names)
    (folder / "teachers").mkdir()
    for number, name in enumerate(names):
        weights = toy_suite.random_weights(toy_suite.SUITE.model("teacher"), toy_suite.CLASSES)
        weights = {key: value + number if key.endswith("bias") else value for key, value in weights.items()}
        torch.save(weights, folder / "teachers" / f"{name}.pth")
    file = folder / "scale.toml"
    file.write_text(
        f"{text.replace('epochs = 2', f'epochs = {EPOCHS}', 1)}[models]\n{models}{named}{pairs}", "utf-8"
    )
    return file


def row_ms(times: Sequence[float], window: int = 200) -> float:
    """Milliseconds per row in the fastest ``window`` rows: other programs make the processor slower, never faster."""
    starts = range(0, len(times) - window, window)
    return 1000 * min(times[start + window] - times[start] for start in starts) / window


def measure(folder: Path, seeds: int = SEEDS) -> dict[str, float]:
    """What each part takes.

    plan_s, report_s, and per row of the first and the second half (`row_ms`) row_first_ms, row_last_ms: the processor's
    time, user and system, so that the disk does not count. sync_ms: what the disk took per row in `os.fsync`, on the
    wall clock, as run_s is. driver_mib, report_mib: peak memory.
    """
    waited = _count_syncs()
    toy_suite.write_images(folder / "tiny.npz", toy_suite.CLASSES, toy_suite.SIZE, 64, 24)
    registry.load()
    with_teacher = [name for name in registry.names() if registry.get(name).needs.teacher]
    choice = {
        "suite": suite_file(folder), "methods": with_teacher[:METHODS], "seeds": f"0-{seeds - 1}", "data_dir": folder,
        "teacher_weights": folder / "teachers", "results": folder / "results", "device": "cpu",
    }  # fmt: skip
    found: dict[str, float] = {"cells": METHODS * PAIRS * seeds}
    executor = MadeUp()
    training.open_executor = lambda *arguments: executor  # type: ignore[assignment]
    clock, start = Clock(executor), time.perf_counter()
    outcome = driver.run(**choice, progress=clock)
    found["run_s"] = time.perf_counter() - start
    assert outcome.complete
    assert len(clock.times) == found["cells"]
    half = len(clock.times) // 2
    found["row_first_ms"], found["row_last_ms"] = row_ms(clock.times[:half]), row_ms(clock.times[half:])
    found["sync_ms"] = 1000 * waited[0] / found["cells"]
    start = time.process_time()
    assert driver.run(**choice, progress=Progress()).complete
    found["plan_s"] = time.process_time() - start
    found["driver_mib"] = peak_mib(Path("/proc/self/status").read_text("utf-8"))
    command = [sys.executable, "-c", REPORT, str(folder / "results"), str(folder / "report")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found["report_s"], found["report_mib"] = float(done.stdout.split()[0]), peak_mib(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
