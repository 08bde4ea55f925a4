"""Everything that training needs: the images and the teachers of a selection, and the cells that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell, plan_cells
from kdbench.runner.stop import Stop
from kdbench.runner.teachers import announce, locate_teacher, remark
from kdbench.runner.train_teachers import obtain_teachers
from kdbench.runner.workspace import Say, Workspace
from kdbench.teachers.weights import Teacher
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job


@dataclass(frozen=True)
class Inputs:
    """A workspace and its teachers. ``teacher_top1``: percent on the split; of those alone that were measured.

    floors: cell id -> epoch -> the top-1 in percent that it must have reached to go on.
    """

    workspace: Workspace
    teachers: Mapping[str, Teacher]
    teacher_top1: Mapping[str, float]
    floors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every teacher is there and measured."""
        return all(name in self.teacher_top1 for name in self.workspace.selection.teachers())

    def cells(self) -> list[Cell]:
        """The matrix. A teacher that is not there has no id, and its cells no result."""
        workspace = self.workspace
        ids = {
            pair.teacher: self.teachers[pair.teacher].id if pair.teacher in self.teachers else None
            for pair in workspace.selection.pairs
        }
        cache = workspace.options.teacher_cache is not None
        return plan_cells(workspace.selection, workspace.split.id, ids, cache)

    def job(self, cells: Sequence[Cell]) -> Job:
        """A cohort of these cells."""
        name = next((cell.teacher for cell in cells if cell.teacher), None)
        options = self.workspace.options
        return Job(
            tuple(cells),
            teacher=self.teachers[name] if name else None,
            data_dir=options.data_dir,
            work=self.workspace.paths.work,
            device=self.workspace.device,
            plugins=options.plugins,
            teacher_cache=options.teacher_cache,
            graphs=options.graphs,
            methods=registry.packed({cell.method for cell in cells}) if options.elsewhere else b"",
            floors={cell.id: self.floors[cell.id] for cell in cells if cell.id in self.floors},
            ranks=options.ranks,
        )


def find_inputs(workspace: Workspace, say: Say) -> Inputs:
    """The inputs with those teachers that are there; none is trained, fetched or measured."""
    teachers = {}
    for name in workspace.selection.teachers():
        if teacher := locate_teacher(workspace, name):
            teachers[name] = teacher
        if text := remark(workspace, name):
            say(text)
    return Inputs(workspace, teachers, {})


def complete_inputs(located: Inputs, progress: Progress, stop: Stop) -> Inputs:
    """The inputs with every teacher that is not there fetched or trained, and all measured.

    Not `complete` where ``stop`` said so. Raises KdbenchError when a teacher cannot be had.
    """
    workspace = located.workspace
    teachers = obtain_teachers(workspace, progress, stop, _raise)
    top1: dict[str, float] = {}
    for name, teacher in teachers.items():
        if stop():
            break
        top1[name] = announce(workspace, teacher, progress.say)
    return Inputs(workspace, teachers, top1)


def _raise(error: KdbenchError) -> None:
    raise error
