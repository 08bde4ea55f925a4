"""A laboratory of 64 images of 8 px.

It is real in every part: an npz file that the loader reads, suites as dataclasses, weights on disk. A cohort of it
trains in a fraction of a second.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdbench import registry
from kdbench.data.loading import load_split
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.run import resolve
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, Suite
from kdbench.suites.schema import View
from kdbench.teachers.weights import Teacher
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result

CLASSES, TRAIN, TEST, SIZE = 4, 64, 24, 8


def write_lab_images(folder: Path) -> None:
    """tiny.npz: each class is a colour and a bright corner, under noise; never two equal images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(count) % CLASSES
        images = rng.integers(0, 120, (count, SIZE, SIZE, 3))
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 2)
            image[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4, label % 3] += 90
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images.astype(np.uint8), labels
    folder.mkdir()
    np.savez(folder / "tiny.npz", **arrays)


RECIPE = Recipe(
    epochs=2, reference_epochs=240, batch_size=16, lr=0.05, momentum=0.9, nesterov=False, weight_decay=5e-4,
    schedule="step", precision="fp32", eval_every=1, milestones=(150, 180, 210),
)  # fmt: skip


SUITE = Suite(
    name="tiny",
    description="64 images",
    methods=("ce", "kd"),
    seeds=(0,),
    dataset=DataSpec("tiny", CLASSES, SIZE, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3), holdout=0.25),
    views={"weak": View(pad=1, flip=True), "strong": View(pad=1, ops=2, magnitude=10, cutout=0.5)},
    recipe=RECIPE,
    pairs=(Pair("teacher", "student"),),
    models={
        "student": ModelSpec("resnet8", {"widths": [4, 4, 8, 8]}),
        "teacher": ModelSpec("resnet8", {"widths": [8, 8, 8, 16]}),
        "dropper": ModelSpec(
            "vit_tiny_patch16_224",
            {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 2, "drop_rate": 0.3},
        ),
    },
)


SUITE_TEXT = """
description = "64 images"
methods = ["ce", "kd"]
seeds = [0]
[dataset]
name = "tiny"
classes = 4
size = 8
mean = [0.4, 0.4, 0.4]
std = [0.3, 0.3, 0.3]
[views.weak]
pad = 1
flip = true
[recipe]
epochs = 2
reference_epochs = 240
batch_size = 16
lr = 0.05
momentum = 0.9
nesterov = false
weight_decay = 5e-4
schedule = "step"
milestones = [150, 180, 210]
precision = "fp32"
eval_every = 1
[models]
student = { arch = "resnet8", args = { widths = [4, 4, 8, 8] } }
teacher = { arch = "resnet8", args = { widths = [8, 8, 8, 16] } }
[[pairs]]
teacher = "teacher"
student = "student"
"""


@dataclass
class Lab:
    """A data folder, a suite, a teacher, and the way from a selection to results."""

    folder: Path
    suite: Suite
    teacher: Teacher
    work_name: str = "work"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def work(self) -> Path:
        return self.folder / self.work_name

    @property
    def split(self):
        return load_split(self.suite.dataset, "test", self.data)

    def using(self, work: str = "work", **recipe: Any) -> "Lab":
        """The same laboratory under another recipe, its checkpoints in a folder of their own."""
        suite = dataclasses.replace(self.suite, recipe=dataclasses.replace(self.suite.recipe, **recipe))
        return dataclasses.replace(self, suite=suite, work_name=work)

    def suite_file(self, *replaced: tuple[str, str], name: str = "tiny") -> Path:
        """The same suite as a TOML file, some of its text replaced."""
        text = SUITE_TEXT
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new)
        file = self.folder / f"{name}.toml"
        file.write_text(text)
        return file

    def open(
        self,
        *replaced: tuple[str, str],
        name: str = "tiny",
        say: Say = lambda text: None,
        **options: Any,
    ) -> Workspace:
        """The workspace of a selection from that file; ``options`` are those of `run`."""
        usual = {"data_dir": self.data, "results": self.folder / "results", "device": "cpu"}
        file = self.suite_file(*replaced, name=name)
        return open_workspace(*resolve(file, **(usual | options)), say)

    def inputs(self, *replaced: tuple[str, str], say: Say = lambda text: None, **options: Any) -> Inputs:
        """The same with the teachers that are there."""
        return find_inputs(self.open(*replaced, say=say, **options), say)

    def cells(self, *methods: str, student: str = "student", sets: Any = None, **pair: Any) -> list[Cell]:
        registry.load()
        pairs = [Pair("teacher", student, **pair)]
        ids = {"teacher": self.teacher.id}
        return plan_cells(Selection(self.suite, methods, pairs, [0], sets or {}), self.split.id, ids)

    def job(self, cells: list[Cell]) -> Job:
        teacher = self.teacher if any(cell.teacher for cell in cells) else None
        return Job(tuple(cells), teacher, self.data, self.work, "cpu")

    def train(self, *methods: str, **options: Any) -> dict[str, Result]:
        """Results by method name."""
        return self.run(self.cells(*methods, **options))

    def run(self, cells: list[Cell], **options: Any) -> dict[str, Result]:
        results, _ = train_cohort(self.job(cells), **options)
        return {str(result.cell): result for result in results}
