"""What is timed: methods on a pair of a suite, with synthetic images and random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdbench import models, registry
from kdbench.contract import toy_suite
from kdbench.data.loading import load_data, load_split
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Overrides, Selection
from kdbench.suites import DataSpec, Pair, Suite, replace_recipe
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils.precision import check as check_fast_paths

DATA = "made_up"
TEST = 64  # images of the evaluation split


@dataclass(frozen=True)
class Work:
    """Plain, picklable data. ``suite`` has the recipe that is timed; ``sets`` is as `plan.cells` takes it."""

    suite: Suite
    pair: Pair
    methods: tuple[str, ...]
    device: str
    sets: Overrides = field(default_factory=dict)
    plugins: Path | None = None
    cached: bool = False  # the teacher's logits are known before the first step
    graphs: str = ""  # steps recorded as CUDA graphs, one of `graph_kinds.GRAPHS`
    jobs: int = 1  # processes that train such a cohort at the same time


def work(
    suite: Suite,
    pair: Pair,
    methods: Sequence[str],
    device: str,
    precision: str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Work:
    """The pair's recipe, with another precision or batch size where given; ``options`` are the other fields of `Work`.

    Raises KdbenchError for a bad value.
    """
    replaced = {"precision": precision, "batch_size": batch_size}
    changes = {key: value for key, value in {**pair.recipe, **replaced}.items() if value is not None}
    recipe = replace_recipe(suite.recipe, changes, "the recipe to time")
    bare = replace(pair, recipe={})
    networks = {name: models.bare(suite.model(name)) for name in (pair.teacher, pair.student)}
    timed_suite = replace(suite, recipe=recipe, models={**suite.models, **networks})
    timed = Work(timed_suite, bare, tuple(methods), device, **options)
    check_fast_paths(recipe.precision, timed.graphs, device)
    return timed


def measured(suite: Suite, data_dir: Path | None = None) -> Suite:
    """The suite with the shape of its images, read from its data where it does not say it.

    Raises KdbenchError where those data are missing.
    """
    data = suite.dataset
    if data.classes and data.size and data.mean and data.std:
        return suite
    return replace(suite, dataset=load_data(data, data_dir)[1])


@contextmanager
def made_up(work: Work, batches: int) -> Iterator[Job]:
    """A cohort of all cells of ``work`` for one epoch of ``batches`` batches; its files are deleted at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry.load(work.plugins)
        given, recipe = work.suite.dataset, work.suite.recipe
        data = DataSpec(DATA, given.classes, given.size, given.mean, given.std)
        suite = replace(work.suite, dataset=data, recipe=replace(recipe, epochs=1))
        train = max(batches * recipe.batch_size, data.classes)
        toy_suite.write_images(folder / f"{DATA}.npz", data.classes, data.size, train, TEST)
        split = load_split(data, "test", folder)
        teacher = toy_suite.random_teacher(folder, suite, work.pair.teacher, settled=True)
        ids = {work.pair.teacher: teacher.id}
        selection = Selection(suite, work.methods, [work.pair], [0], work.sets)
        cells = plan_cells(selection, split.id, ids, teacher_cache=work.cached)
        job = Job(
            tuple(cells),
            teacher if any(cell.teacher for cell in cells) else None,
            data_dir=folder,
            work=folder / "work",
            device=work.device,
            plugins=work.plugins,
            teacher_cache=folder / "cache" if work.cached else None,
            graphs=work.graphs,
        )
        cached = tuple(cell for cell in cells if cell.teacher_cache)[:1]
        if cached:  # the same seed draws the same views
            train_cohort(replace(job, cells=cached, work=folder / "filling"))
        yield job
