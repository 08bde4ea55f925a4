"""What is timed: methods on a pair of a suite, with made-up images and random weights, so that only shapes count."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdbench import models, registry
from kdbench.data.augment import plain
from kdbench.data.loading import load_data, load_split
from kdbench.plan.cells import plan_cells, replace_recipe
from kdbench.plan.selection import Overrides, Selection
from kdbench.suites import DataSpec, Pair, Suite
from kdbench.teachers.weights import open_teacher
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils.precision import check as check_fast_paths
from kdbench.utils.state_dicts import save_weights

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
    graphs: bool = False  # steps recorded as CUDA graphs
    jobs: int = 1  # processes that train such a cohort at the same time


def work(
    suite: Suite,
    pair: Pair,
    methods: Sequence[str],
    device: str,
    *,
    precision: str | None = None,
    batch_size: int | None = None,
    sets: Overrides | None = None,
    plugins: Path | None = None,
    cached: bool = False,
    graphs: bool = False,
    jobs: int = 1,
) -> Work:
    """The pair's recipe, with another precision or batch size where given. Raises KdbenchError for a bad value."""
    asked = {"precision": precision, "batch_size": batch_size}
    changes = {key: value for key, value in {**pair.recipe, **asked}.items() if value is not None}
    recipe = replace_recipe(suite.recipe, changes, "the recipe to time")
    check_fast_paths(recipe.precision, graphs, device)
    bare = replace(pair, recipe={})
    spec = replace(suite, recipe=recipe)
    return Work(spec, bare, tuple(methods), device, sets or {}, plugins, cached, graphs, jobs)


def measured(suite: Suite, data_dir: Path | None = None) -> Suite:
    """The suite with its images' shape. Raises KdbenchError where only the data would tell and are not at hand."""
    data = suite.dataset
    if data.classes and data.size and data.mean and data.std:
        return suite
    return replace(suite, dataset=load_data(data, data_dir)[1])


@contextmanager
def made_up(work: Work, batches: int) -> Iterator[Job]:
    """A cohort of all cells of ``work`` on one epoch of ``batches`` batches; its files go when it is done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry.load(work.plugins)
        given, recipe = work.suite.dataset, work.suite.recipe
        data = DataSpec(DATA, given.classes, given.size, given.mean, given.std)
        suite = replace(work.suite, dataset=data, recipe=replace(recipe, epochs=1))
        _write_images(folder, max(batches * recipe.batch_size, data.classes), data.classes, data.size)
        split = load_split(data, "test", folder)
        spec = suite.model(work.pair.teacher)
        weights = folder / "teacher.safetensors"
        images = plain(split.train.images[: recipe.batch_size])
        save_weights(weights, _settled(models.create(spec.arch, data.classes, **spec.args), images))
        teacher = open_teacher(work.pair.teacher, spec, weights, data, None)
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


def _write_images(folder: Path, count: int, classes: int, size: int) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, images in (("train", count), ("test", TEST)):
        arrays[f"x_{part}"] = draw.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(images) % classes
    np.savez(folder / f"{DATA}.npz", **arrays)  # type: ignore[arg-type]


def _settled(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights with BatchNorm's statistics of ``images``: without them a deep network's maps would explode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images - 0.5)
    return model.state_dict()
