"""The toy suite: 64 images of 8 px in four colours, two thin networks and a teacher that has learned the colours.

The contract's training checks, the benchmarks and the tests take their images, suite and teachers from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench import models, suites
from kdbench.data.loading import load_split
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.suites import ModelSpec, Pair, Suite
from kdbench.teachers.weights import Teacher, open_teacher
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

FILE = Path(__file__).with_name("toy.toml")
SUITE = suites.load(str(FILE))
CLASSES, SIZE = SUITE.dataset.classes, SUITE.dataset.size
TRAIN, TEST = 64, 24  # images

COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 60))  # of the first classes
NOISE = 12  # standard deviation of a pixel around its class's colour, of 255
SETTLING = 16  # random images from which fresh weights take their BatchNorm statistics


def write_images(file: Path, classes: int, size: int, train: int, test: int) -> None:
    """Write an npz file of images that a network can learn: each class has a colour, under noise.

    file: gets x_train [train, size, size, 3] and x_test [test, ...] uint8, and labels y_train and y_test in turn
    0..classes-1. The same arguments give the same images, and no two images are equal.
    """
    noise, more = np.random.default_rng(0), np.random.default_rng(1)
    further = more.integers(60, 200, (max(0, classes - len(COLOURS)), 3))
    colours = np.concatenate([np.array(COLOURS), further])
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        images = np.empty((count, size, size, 3), np.uint8)
        for image, label in zip(images, labels, strict=True):  # one at a time: large images need much memory
            image[:] = (colours[label] + noise.normal(0, NOISE, image.shape)).clip(0, 255)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images, labels
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **arrays)  # type: ignore[arg-type]


def random_weights(spec: ModelSpec, classes: int, settled_at: int | None = None) -> dict[str, Tensor]:
    """The state dict of a fresh network, always the same one.

    settled_at: pixels of random images from which its BatchNorm layers take their statistics; None leaves them as
    created. Without such statistics a deep network's maps explode in evaluation mode.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(6)  # no class order fits its guesses better than the true one
        model = models.create(spec.arch, classes, **spec.args)
        if settled_at is not None:
            _settle(model, torch.rand(SETTLING, 3, settled_at, settled_at) - 0.5)
    return model.state_dict()


@torch.no_grad()
def _settle(model: nn.Module, images: Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(images)


def random_teacher(folder: Path, suite: Suite, name: str, settled: bool = False) -> Teacher:
    """The suite's network ``name`` with `random_weights`, saved into ``folder``."""
    data, spec, file = suite.dataset, suite.model(name), folder / f"{name}.safetensors"
    save_weights(file, random_weights(spec, data.classes, data.size if settled else None))
    return open_teacher(name, spec, file, data, None)


class Steps(Progress):
    """Counts the steps of a cohort."""

    def __init__(self) -> None:
        self.done = 0

    def step(self, images: int) -> None:
        """Count one step."""
        self.done += 1


@dataclass
class ToyRuns:
    """Cohorts of a suite on toy images in ``folder``. Teachers are trained when first needed."""

    folder: Path
    suite: Suite

    def __post_init__(self) -> None:
        data = self.suite.dataset
        write_images(self.folder / f"{data.name}.npz", data.classes, data.size, TRAIN, TEST)
        self._teachers: dict[str, Teacher] = {}

    @cached_property
    def split_id(self) -> str:
        """The hash of the images."""
        return load_split(self.suite.dataset, "test", self.folder).id

    def teacher(self, name: str) -> Teacher:
        """The network ``name`` trained by cross-entropy, by the cohort loop, for twice as long as a student."""
        if name not in self._teachers:
            longer = replace(
                self.suite, recipe=replace(self.suite.recipe, epochs=2 * self.suite.recipe.epochs)
            )
            selection = Selection(longer, ["ce"], [Pair(name, name)], [1])
            cells = plan_cells(selection, self.split_id, {name: None})
            results, _ = train_cohort(Job(tuple(cells), None, self.folder, self.folder / "teachers", "cpu"))
            if results[0].row["status"] != Status.OK:
                raise RuntimeError(f"the teacher {name} was not trained: {results[0].row['error']}")
            path = self.folder / f"{name}.safetensors"
            save_weights(path, results[0].student)
            self._teachers[name] = open_teacher(name, self.suite.model(name), path, self.suite.dataset, None)
        return self._teachers[name]

    def cells(
        self, methods: Sequence[str], pair: Pair, seed: int = 0, suite: Suite | None = None, **sets: Any
    ) -> list[Cell]:
        """One cell per method. suite: in place of ``self.suite``. sets: values by method and parameter."""
        ids = {pair.teacher: self.teacher(pair.teacher).id}
        return plan_cells(Selection(suite or self.suite, methods, [pair], [seed], sets), self.split_id, ids)

    def job(self, cells: Sequence[Cell], work: str) -> Job:
        """A cohort whose checkpoints are in the folder ``work``."""
        name = next((cell.teacher for cell in cells if cell.teacher), None)
        teacher = self.teacher(name) if name else None
        return Job(tuple(cells), teacher, self.folder, self.folder / "work" / work, "cpu")

    def train(self, cells: Sequence[Cell], work: str, stop_after: int | None = None) -> dict[str, Result]:
        """Results by method. stop_after: steps after which the cohort is stopped and started again."""
        job, steps = self.job(cells, work), Steps()
        stop: Callable[[], bool] = lambda: stop_after is not None and steps.done >= stop_after  # noqa: E731
        results, stopped = train_cohort(job, steps, stop)
        if stopped:
            results, _ = train_cohort(job)
        return {result.cell.method: result for result in results}


def difference(a: Result, b: Result) -> str | None:
    """What differs between two results, times aside; None where they agree to the last bit."""
    if a.row["status"] != b.row["status"]:
        return f"the status is {a.row['status']} and {b.row['status']} ({a.row['error'] or b.row['error']})"
    if a.curves != b.curves:
        place = next((x for x, y in zip(a.curves, b.curves, strict=False) if x != y), None)
        return (
            f"the curves differ from epoch {place[0]} on ({place[1]})"
            if place
            else "the curves differ in length"
        )
    weights = [k for k in a.student if not torch.equal(a.student[k], b.student[k])]
    return f"the weights {weights[0]} differ" if weights else None
