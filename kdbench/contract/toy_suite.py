"""A small world to train in: 64 images of 8 px in four colours, two thin networks, a teacher that has learned them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdbench.data.loading import load_split
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, Suite
from kdbench.suites.schema import View
from kdbench.teachers.weights import Teacher, open_teacher
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

CLASSES, SIZE, TRAIN, TEST = 4, 8, 64, 32
EPOCHS, BATCH = 4, 16
STEPS = TRAIN // BATCH  # an epoch

DATA = DataSpec("colours", CLASSES, SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
RECIPE = Recipe(
    epochs=EPOCHS,
    reference_epochs=240,
    batch_size=BATCH,
    lr=0.03,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    schedule="onecycle",
    precision="fp32",
    eval_every=2,
)
VIEWS = {"weak": View(pad=1, flip=True), "strong": View(pad=1, flip=True, cutout=0.3)}
MODELS = {
    "thin": ModelSpec("resnet8", {"widths": [8, 8, 8, 8]}),
    "wide": ModelSpec("resnet8", {"widths": [8, 10, 10, 12]}),
    "twin": ModelSpec("resnet8", {"widths": [8, 8, 8, 8]}),
}
PAIRS = (Pair("wide", "thin"), Pair("twin", "thin"))  # the second for methods that need equal shapes


def write_images(path: Path) -> None:
    """Four colours with noise, a quarter of the images each."""
    random = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(count) % CLASSES
        noise = random.normal(0, 12, (count, SIZE, SIZE, 3))
        arrays[f"x_{part}"] = (colours[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = labels
    np.savez(path, **arrays)  # type: ignore[arg-type]


class Steps(Progress):
    """Counts the steps of a cohort."""

    def __init__(self) -> None:
        self.done = 0

    def step(self, images: int) -> None:
        self.done += 1


@dataclass
class Rig:
    """The world in ``folder``; ``models`` and ``pairs`` may be others. Teachers are trained when first asked for."""

    folder: Path
    models: dict[str, ModelSpec]
    pairs: Sequence[Pair]

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_images(self.folder / f"{DATA.name}.npz")
        self.split_id = load_split(DATA, "test", self.folder).id
        self._teachers: dict[str, Teacher] = {}

    def suite(self, recipe: Recipe = RECIPE) -> Suite:
        """The suite of this world."""
        return Suite(
            description="contract checks",
            methods=("ce",),
            seeds=(0,),
            dataset=DATA,
            views=VIEWS,
            recipe=recipe,
            pairs=tuple(self.pairs),
            models=self.models,
            name="colours",
        )

    def teacher(self, name: str) -> Teacher:
        """Trained by cross-entropy and the real loop, for twice as long as a student."""
        if name not in self._teachers:
            recipe = Recipe(**{**vars(RECIPE), "epochs": 2 * EPOCHS})
            pair = Pair(name, name)
            selection = Selection(self.suite(recipe), ["ce"], [pair], [1])
            cells = plan_cells(selection, self.split_id, {name: None})
            results, _ = train_cohort(Job(tuple(cells), None, self.folder, self.folder / "teachers", "cpu"))
            if results[0].row["status"] != Status.OK:
                raise RuntimeError(f"the teacher {name} was not trained: {results[0].row['error']}")
            path = self.folder / f"{name}.safetensors"
            save_weights(path, results[0].student)
            self._teachers[name] = open_teacher(name, self.models[name], path, DATA, None)
        return self._teachers[name]

    def cells(
        self, methods: Sequence[str], pair: Pair, seed: int = 0, recipe: Recipe = RECIPE, **sets: Any
    ) -> list[Cell]:
        """One cell a method; ``sets`` are values by method and parameter."""
        ids = {pair.teacher: self.teacher(pair.teacher).id}
        return plan_cells(Selection(self.suite(recipe), methods, [pair], [seed], sets), self.split_id, ids)

    def job(self, cells: Sequence[Cell], work: str) -> Job:
        """A cohort with its own folder for checkpoints."""
        name = next((cell.teacher for cell in cells if cell.teacher), None)
        teacher = self.teacher(name) if name else None
        return Job(tuple(cells), teacher, self.folder, self.folder / "work" / work, "cpu")

    def train(self, cells: Sequence[Cell], work: str, stop_after: int | None = None) -> dict[str, Result]:
        """Results by method; ``stop_after`` steps the cohort is stopped and started again."""
        job, steps = self.job(cells, work), Steps()
        stop: Callable[[], bool] = lambda: stop_after is not None and steps.done >= stop_after  # noqa: E731
        results, stopped = train_cohort(job, steps, stop)
        if stopped:
            results, _ = train_cohort(job)
        return {result.cell.method: result for result in results}


def same(a: Result, b: Result) -> str | None:
    """None where two results agree bit for bit but for times, else what differs."""
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
