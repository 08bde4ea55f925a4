"""A laboratory of the toy suite: an npz file that the loader reads, a suite file, weights on disk.

A cohort of it trains in a fraction of a second.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.contract import toy_suite
from kdbench.data.loading import load_split
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.run import resolve
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites import ModelSpec, Pair, Suite
from kdbench.teachers.weights import Teacher
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job, Result

SUITE_TEXT = toy_suite.FILE.read_text()
SUITE = dataclasses.replace(
    toy_suite.SUITE,
    name="tiny",
    dataset=dataclasses.replace(toy_suite.SUITE.dataset, holdout=0.25),
    models={
        **toy_suite.SUITE.models,
        "dropper": ModelSpec(
            "vit_tiny_patch16_224",
            {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 2, "drop_rate": 0.3},
        ),
    },
)
RECIPE = SUITE.recipe


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
