"""A matrix of 20,000 cells with made-up results, planned, recorded and reported; what each part takes, as JSON.

`python -m tests.support.scale FOLDER` in a process of its own, so that its peak memory is that of the driver.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch

from kdbench import registry, write_report
from kdbench.contract import toy_suite
from kdbench.plan.cells import Cell
from kdbench.runner import run as driver
from kdbench.runner.executors.base import Done, now
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job, Result
from kdbench.utils.status import Status

METHODS, SEEDS, PAIRS, EPOCHS = 40, 50, 10, 4
CELLS = METHODS * SEEDS * PAIRS
TERMS = ("loss", "train_top1", "top1")


class MadeUp:
    """An executor whose results cost nothing."""

    name, slots, jobs = "processes", 8, 8

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return []

    def submit(self, job: Job) -> Future[Done]:
        future: Future[Done] = Future()
        results = [result(cell, len(job.cells)) for cell in job.cells]
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
    """Notes the processor's time when each row is announced."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def say(self, text: str) -> None:
        if "top-1" in text and "seed" in text:
            self.times.append(time.process_time())


def _count_syncs() -> list[float]:
    """One number: the seconds that the disk took in `os.fsync`, from now on."""
    waited, sync = [0.0], os.fsync

    def timed(file: int) -> None:
        start = time.perf_counter()
        sync(file)
        waited[0] += time.perf_counter() - start

    os.fsync = timed
    return waited


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


def measure(folder: Path) -> dict[str, float]:
    """Seconds and MiB of each part.

    plan_s, rate_first, rate_last (per row of the first and the last 1,000) are the processor's seconds, so that
    neither other programs nor the disk count; sync_s is what the disk took in os.fsync.
    """
    waited = _count_syncs()
    toy_suite.write_images(folder / "tiny.npz", toy_suite.CLASSES, toy_suite.SIZE, 64, 24)
    registry.load()
    with_teacher = [name for name in registry.names() if registry.get(name).needs.teacher]
    choice = {
        "suite": suite_file(folder), "methods": with_teacher[:METHODS], "seeds": f"0-{SEEDS - 1}", "data_dir": folder,
        "teacher_weights": folder / "teachers", "results": folder / "results", "device": "cpu",
    }  # fmt: skip
    found: dict[str, float] = {}
    driver.run(**choice, max_hours=0, progress=Progress())  # measures the teachers, trains nothing
    start = time.process_time()
    planned = driver.run(**choice, max_hours=0, progress=Progress())
    found["plan_s"] = time.process_time() - start
    assert len(planned.cells) == CELLS
    clock, start = Clock(), time.perf_counter()
    outcome = driver.run(**choice, progress=clock)
    found["run_s"] = time.perf_counter() - start
    found["sync_s"] = waited[0]
    assert outcome.exit_code == 0
    assert len(clock.times) == CELLS
    found["rate_first"] = (clock.times[1000] - clock.times[0]) / 1000
    found["rate_last"] = (clock.times[-1] - clock.times[-1001]) / 1000
    start = time.perf_counter()
    again = driver.run(**choice, progress=Progress())
    found["replan_s"] = time.perf_counter() - start
    assert again.complete
    found["driver_mib"] = _peak()
    start = time.perf_counter()
    write_report("scale", folder / "results", folder / "report")
    found["report_s"] = time.perf_counter() - start
    found["report_mib"] = _peak()
    return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    driver.open_executor = lambda *arguments: MadeUp()  # type: ignore[assignment]
    print(json.dumps(measure(Path(sys.argv[1]))))
