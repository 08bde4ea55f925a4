"""The missing teachers of a selection are fetched, or trained by the executor that trains its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.plan.selection import Selection
from kdbench.runner.executors import check_not_submitted
from kdbench.runner.listeners import heard_by_all
from kdbench.runner.options import RunOptions
from kdbench.runner.stop import Stop
from kdbench.runner.teachers import (
    announce,
    fetch,
    locate_teacher,
    pretrained_path,
    remark,
    teacher_cell,
    trained_path,
)
from kdbench.runner.training import side_by_side
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites.schema import SGD
from kdbench.teachers import catalog
from kdbench.teachers.weights import Teacher
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job, Result
from kdbench.utils import locks
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

Failed = Callable[
    [KdbenchError], object
]  # is called with the error of a teacher; the others go on unless it raises


def obtain_teachers(
    workspace: Workspace, progress: Progress, stop: Stop, failed: Failed, train: bool = False
) -> dict[str, Teacher]:
    """The teachers of a selection by name: located, fetched or trained.

    Those that fail are left out, and those that are not trained when ``stop`` says so (their state is saved). A teacher
    whose weights timm has is trained only where ``train`` is true.
    """
    teachers: dict[str, Teacher | None] = {}
    for name in workspace.selection.teachers():
        try:
            teachers[name] = _located(workspace, name, progress.say, train)
        except KdbenchError as error:
            failed(error)
    absent = [name for name, teacher in teachers.items() if teacher is None]
    _train_absent(workspace, absent, progress, stop, failed)
    for name in absent:
        if trained_path(workspace, name).is_file():
            _prefer_trained(workspace, name)
            teachers[name] = locate_teacher(workspace, name)
    return {name: teacher for name, teacher in teachers.items() if teacher is not None}


def _located(workspace: Workspace, name: str, say: Say, train: bool) -> Teacher | None:
    """The teacher, fetched where that is how it is obtained; None: it must be trained."""
    path = None if workspace.options.teacher_split else pretrained_path(workspace, name)
    teacher = locate_teacher(workspace, name)
    if teacher is None and path is not None and not train:
        fetch(workspace, name, path, say)
        teacher = locate_teacher(workspace, name)
    return teacher


def _prefer_trained(workspace: Workspace, name: str) -> None:
    """Where timm has weights too, the ones that the user chose to train go before them."""
    if pretrained_path(workspace, name) is not None and not workspace.options.teacher_split:
        data, model = workspace.suite.dataset, workspace.suite.model(name)
        trained = trained_path(workspace, name)
        catalog.assign(workspace.paths.work, data.name, name, model, trained, workspace.data_id)


def _train_absent(
    workspace: Workspace, names: Sequence[str], progress: Progress, stop: Stop, failed: Failed
) -> None:
    """Train and save teachers; those that another process trains are waited for."""
    cells = [teacher_cell(workspace, name) for name in names]
    check_not_submitted(workspace.options, workspace.paths.slurm, cells)
    while cells := _untrained(workspace, cells):
        names = ", ".join(cell.student for cell in cells)
        progress.plan([[cell] for cell in cells], f"teacher{'s' * (len(cells) > 1)} {names}")
        for cell in cells:
            progress.say(f"training the teacher {cell.student} for {cell.recipe.epochs} epochs")
        tried = _train_free(workspace, cells, progress, stop, failed)
        if stop():
            return
        cells = [cell for cell in cells if cell.id not in tried]
        locks.wait_for(workspace.paths.locks, [cell.id for cell in cells], stop)


def _untrained(workspace: Workspace, cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if not trained_path(workspace, cell.student).is_file()]


def _train_free(
    workspace: Workspace, cells: Sequence[Cell], progress: Progress, stop: Stop, failed: Failed
) -> set[str]:
    """Train those that no other process trains, each as a job of its own; returns their ids."""
    paths, options, tried = workspace.paths, workspace.options, set()

    def job(cells: Sequence[Cell]) -> Job:
        graphs = options.graphs if all(cell.recipe.optimizer == SGD for cell in cells) else ""
        return Job(tuple(cells), None, options.data_dir, paths.work, workspace.device, graphs=graphs)

    def left(cells: Sequence[Cell]) -> list[Cell]:
        return _untrained(workspace, cells)

    with side_by_side([[cell] for cell in cells], job, left, workspace, progress, stop) as (_, finished):
        for done in finished:
            for result in done.results:
                tried.add(result.cell.id)
                try:
                    _save(workspace, result)
                except KdbenchError as error:
                    failed(error)
    return tried


def _save(workspace: Workspace, result: Result) -> None:
    """Save what was trained; raises KdbenchError where there is nothing to save or it cannot be."""
    cell, status = result.cell, result.row["status"]
    name, path = cell.student, trained_path(workspace, cell.student)
    if status == Status.INTERRUPTED:
        return
    if status == Status.OOM:
        raise KdbenchError(
            f"the teacher {name} does not fit the memory of {workspace.device}; train it on another device, or "
            "give a smaller batch_size in [teacher_recipe] of a suite of your own"
        )
    if status == Status.DIVERGED:
        raise KdbenchError(
            f"the teacher {name} diverged in epoch {result.row['epochs_done']}; give it a smaller lr than "
            f"{cell.recipe.lr:g}, or a clip, in [teacher_recipe] of a suite of your own"
        )
    if status != Status.OK:
        raise KdbenchError(f"the teacher {name} could not be trained: {result.row['error']}")
    try:
        save_weights(path, result.student)
    except OSError as error:
        raise KdbenchError(
            f"cannot save the teacher to {path} ({error.strerror}); free some space and run again"
        ) from error
    checkpoint.remove(workspace.paths.work, cell.id)


def train_teachers(selection: Selection, options: RunOptions, progress: Progress) -> int:
    """Have every teacher of a selection ready, whatever becomes of the others.

    Returns the exit code: 0, 3 where one could not be had (``progress`` says why), 128 + signal when interrupted.
    """
    stop, failures = Stop(), []

    def failed(error: KdbenchError) -> None:
        progress.say(f"kdbench: {error}")
        failures.append(error)

    with stop.listening(progress.say), heard_by_all(progress, selection.suite.name, options) as progress:
        workspace = open_workspace(selection, options, progress.say)
        for name in selection.teachers():
            if text := remark(workspace, name):
                progress.say(text)
        for teacher in obtain_teachers(workspace, progress, stop, failed, train=True).values():
            if not stop():
                announce(workspace, teacher, progress.say)
    return stop.exit_code or 3 * bool(failures)
