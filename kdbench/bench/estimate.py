"""How long a suite takes on this machine, from a few timed steps of each pair's cohort."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kdbench import registry, suites
from kdbench.bench.timing import Blocks, median_ms, now
from kdbench.bench.workload import TEST, Work, made_up, measured, work
from kdbench.data.catalog import CATALOG
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.plan.selection import select_methods
from kdbench.runner.progress import to_stderr
from kdbench.suites import DataSpec, Pair, Suite
from kdbench.train.job import Job
from kdbench.train.recorded_steps import settled
from kdbench.train.schedule import evaluates
from kdbench.utils.environment import choose_device, collect
from kdbench.utils.text import duration, grid

STEPS, PATIENCE = 12, 8.0  # steps a pair, and the seconds after which fewer will do
PIXELS = 2**20  # of a batch on a CPU: larger ones are timed in part


@dataclass(frozen=True)
class Cost:
    """What a pair's cohort costs: milliseconds per step, and hours for all seeds with their evaluations."""

    pair: Pair
    step_ms: float
    hours: float


def sizes(data: DataSpec, data_dir: Path | None = None) -> tuple[int, int]:
    """(train, test) images. Raises KdbenchError for a set that is not at hand and whose size nobody knows."""
    known = CATALOG.get(data.name)
    if known is None or data.folder or data.npz:
        split = load_split(data, "test", data_dir)
        return len(split.train), len(split.evaluation)
    limits = data.train_per_class, data.test_per_class
    train, test = (
        count if limit is None else min(count, limit * data.classes)
        for count, limit in zip((known.train, known.test), limits, strict=True)
    )
    return train, test


def training_hours(step_ms: float, images: int, batch_size: int, epochs: int, runs: int = 1) -> float:
    """Hours of ``runs`` trainings, evaluation left out."""
    return step_ms * -(-images // batch_size) * epochs * runs / 3.6e6


def step_and_evaluation(job: Job) -> tuple[float, float]:
    """Milliseconds per step of a cohort past its recordings, and seconds of its students' evaluation per image.

    The first step is left out; fewer are made where they would take longer than PATIENCE. Methods that skip the pair
    take no time.
    """
    loop = Blocks(job, settled(job.graphs), 1, may_skip=True)
    deadline = time.monotonic() + PATIENCE
    blocks = loop.run(lambda: bool(loop.blocks) and time.monotonic() > deadline)
    started = now(loop.device)
    for trainee in loop.trained():
        trainee.evaluate(loop.cohort.evaluation)
    evaluation = (now(loop.device) - started) / TEST
    return median_ms(blocks[1:] or blocks, 1) if blocks else 0.0, evaluation


def cost(load: Work, seeds: int, images: tuple[int, int]) -> Cost:
    """The pair's cohort, timed by a dozen steps."""
    recipe, (train, test) = load.suite.recipe, images
    whole = recipe.batch_size
    part = min(whole, PIXELS // load.suite.dataset.size**2) if load.device == "cpu" else whole
    timed = replace(load, suite=replace(load.suite, recipe=replace(recipe, batch_size=part)))
    with made_up(timed, STEPS) as job:
        step, evaluation = step_and_evaluation(job)
    step *= whole / part
    evaluations = sum(evaluates(recipe, epoch) for epoch in range(recipe.epochs))
    own = training_hours(step, train, whole, recipe.epochs) + evaluation * test * evaluations / 3600
    return Cost(load.pair, step, seeds * own)


def costs(
    suite: Suite,
    device: str = "auto",
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Cost]:
    """Every pair of a suite with its methods and seeds, or with those given; ``say`` receives a line per pair.

    Raises KdbenchError for a data set of unknown size or a method that cannot train on a pair.
    """
    registry.load()
    suite = measured(suite, data_dir)
    chosen = select_methods(methods, suite.methods)
    images, count = sizes(suite.dataset, data_dir), len(suite.seeds if seeds is None else seeds)
    estimates = []
    for pair in suite.pairs:
        say(f"timing {pair}: a few steps of {', '.join(chosen)} side by side")
        estimates.append(cost(work(suite, pair, chosen, choose_device(device)), count, images))
    return estimates


def report(name: str, data_dir: Path | None = None, device: str = "auto") -> str:
    """One line per pair and the total, as text; progress on stderr."""
    suite = suites.load(name)
    try:
        estimates = costs(suite, device, data_dir=data_dir, say=to_stderr)
    except (KdbenchError, torch.OutOfMemoryError) as error:
        return f"no estimate of hours: {error}"
    lines: list[Sequence[str]] = [("pair", "ms per step", "time")]
    lines += [(str(one.pair), f"{one.step_ms:.0f}", duration(3600 * one.hours)) for one in estimates]
    total = duration(3600 * sum(one.hours for one in estimates))
    lines.append(("all pairs", "", total))
    place = collect(choose_device(device))
    methods = select_methods(None, suite.methods)
    return (
        f"time for {len(methods)} methods x {len(suite.seeds)} seeds, the methods side by side; measured on "
        f"{place['device']} with {place['threads']} threads, images in memory; teachers' own training left out\n"
        f"{grid(lines)}"
    )
