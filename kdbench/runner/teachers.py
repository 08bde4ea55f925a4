"""The teachers of a selection: which file each one is, how a missing one is fetched or trained, what it reaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection
from kdbench.runner.heartbeat import Heartbeat
from kdbench.runner.options import RunOptions
from kdbench.runner.paths import Paths
from kdbench.runner.stop import Stop
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites import Pair, replace_recipe
from kdbench.teachers import catalog
from kdbench.teachers.accuracy import accuracy_lines, assess, measure
from kdbench.teachers.weights import Teacher, find_file, open_teacher
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress, Together
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils import locks
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

# --- which file ---


def teacher_cell(workspace: Workspace, name: str) -> Cell:
    """The training run that makes a teacher: plain cross-entropy by the suite's teacher recipe, seed 0."""
    suite, split = workspace.suite, workspace.selection.split
    recipe = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
    suite = dataclasses.replace(suite, recipe=recipe)
    selection = Selection(suite, ["ce"], [Pair(name, name)], [0], split=split)
    return plan_cells(selection, workspace.split.id, {name: None})[0]


def trained_path(workspace: Workspace, name: str) -> Path:
    """Where a teacher's weights are saved that is trained here."""
    return _folder(workspace) / f"{name}-{teacher_cell(workspace, name).id}.safetensors"


def pretrained_path(workspace: Workspace, name: str) -> Path | None:
    """Where the weights are saved that timm has for a teacher; None where the suite names none."""
    known = workspace.suite.teachers.get(name)
    return (
        _folder(workspace) / f"{name}-{known.pretrained}.safetensors" if known and known.pretrained else None
    )


def _folder(workspace: Workspace) -> Path:
    return catalog.folder(workspace.paths.work)


def locate_teacher(workspace: Workspace, name: str) -> Teacher | None:
    """The teacher, where it is there; None where it must be trained or fetched.

    In order of precedence, highest first: --teacher-weights, the last one imported, timm's weights where the suite
    names them, else the one trained here.
    """
    suite, work, weights = workspace.suite, workspace.paths.work, workspace.options.teacher_weights
    dataset, model = suite.dataset, suite.model(name)
    if weights:
        path = find_file(name, weights)
    else:
        own = pretrained_path(workspace, name) or trained_path(workspace, name)
        path = catalog.assigned_file(work, dataset.name, name, model, workspace.data_id) or own
    if not path.is_file():
        return None
    expected = suite.teachers[name].top1 if name in suite.teachers else None
    return open_teacher(name, model, path, dataset, expected)


def remark(workspace: Workspace, name: str) -> str:
    """What `teachers.catalog.data_remark` says of a teacher, where the user did not give its weights."""
    if workspace.options.teacher_weights:
        return ""
    suite = workspace.suite
    return catalog.data_remark(
        workspace.paths.work, suite.dataset.name, name, suite.model(name), workspace.data_id
    )


def listing(workspace: Workspace) -> Iterator[tuple[str, Teacher | None, bool]]:
    """Name, teacher (None: not here yet) and whether `run` uses it: the suite's, then all imported for its data."""
    work, data = workspace.paths.work, workspace.suite.dataset
    own = workspace.selection.teachers()
    imported = {} if workspace.options.teacher_weights else catalog.entries(work, data.name)
    for name in dict.fromkeys([*own, *imported]):
        model = workspace.suite.model(name)
        entries = (
            catalog.matching_entries(work, data.name, name, model, workspace.data_id)
            if name in imported
            else []
        )
        if not entries and name not in own:
            continue
        used = locate_teacher(workspace, name)
        yield name, used, True
        files = [_folder(workspace) / entry["file"] for entry in entries]
        for path in [*files, trained_path(workspace, name)]:
            if used is not None and path != used.path and path.is_file():
                yield name, open_teacher(name, model, path, data, used.expected), False


# --- a missing one ---


def obtain_teacher(
    workspace: Workspace, name: str, progress: Progress, stop: Callable[[], bool], train: bool = False
) -> Teacher | None:
    """Fetch or train a teacher that is not there; None when ``stop`` said so (its state is saved).

    Where the suite names weights that timm has, the teacher is trained only if ``train`` is true. Raises KdbenchError
    when it cannot be had.
    """
    path = pretrained_path(workspace, name)
    if path is not None and not train:
        _fetch(workspace, name, path, progress.say)
    elif not _train(workspace, name, progress, stop):
        return None
    elif path is not None:  # the user chose to train this one, so it goes before timm's
        data, model = workspace.suite.dataset, workspace.suite.model(name)
        trained = trained_path(workspace, name)
        catalog.assign(workspace.paths.work, data.name, name, model, trained, workspace.data_id)
    return locate_teacher(workspace, name)


def _train(workspace: Workspace, name: str, progress: Progress, stop: Callable[[], bool]) -> bool:
    """Train a teacher and save it, unless another process did meanwhile; False when ``stop`` said so."""
    cell, path, work = teacher_cell(workspace, name), trained_path(workspace, name), workspace.paths.work
    with locks.held(workspace.paths.locks, [cell.id], wait=True):
        if path.is_file():
            return True
        progress.say(f"training the teacher {name} for {cell.recipe.epochs} epochs")
        progress.plan([[cell]], f"teacher {name}")
        job = Job((cell,), None, workspace.options.data_dir, work, workspace.device)
        try:
            (result,), stopped = train_cohort(job, progress, stop)
        except torch.OutOfMemoryError as error:
            raise KdbenchError(
                f"the teacher {name} does not fit the memory of {workspace.device}; train it on another device, or "
                "give a smaller batch_size in [teacher_recipe] of a suite of your own"
            ) from error
        if stopped:
            return False
        if result.row["status"] == Status.DIVERGED:
            raise KdbenchError(
                f"the teacher {name} diverged in epoch {result.row['epochs_done']}; give it a smaller lr than "
                f"{cell.recipe.lr:g}, or a clip, in [teacher_recipe] of a suite of your own"
            )
        if result.row["status"] != Status.OK:
            raise KdbenchError(f"the teacher {name} could not be trained: {result.row['error']}")
        try:
            save_weights(path, result.student)
        except OSError as error:
            raise KdbenchError(
                f"cannot save the teacher to {path} ({error.strerror}); free some space and run again"
            ) from error
        checkpoint.remove(work, cell.id)
    return True


def _fetch(workspace: Workspace, name: str, path: Path, say: Say) -> None:
    """Save the weights that timm has under the suite's tag. Raises KdbenchError with the other ways where it fails."""
    tag = workspace.suite.teachers[name].pretrained or ""
    if not timm.is_model_pretrained(tag):
        raise unknown(
            "pretrained weights", tag, timm.list_pretrained(), f" (of the teacher {name}, by timm's name)"
        )
    say(f"fetching the teacher {name}: {tag} from timm")
    try:
        save_weights(path, timm.create_model(tag, pretrained=True).state_dict())
    except Exception as error:  # a hub that cannot be reached fails in many ways
        reason = first_line(error).rstrip(".")
        raise KdbenchError(
            f"the teacher {name} could not be fetched: timm.create_model({tag!r}, pretrained=True) says: {reason}; go "
            f"online, or give its file with `kdbench teachers import FILE --name {name}` or --teacher-weights FOLDER, "
            "or train it with `kdbench teachers train` (each with the same --suite)"
        ) from error


# --- what it reaches ---


def accuracy(workspace: Workspace, teacher: Teacher) -> float:
    """Top-1 in percent on the split; its logits are measured once, then saved under the weights' hash."""
    device = torch.device(workspace.device)
    return measure(teacher, workspace.suite.dataset, workspace.split, workspace.paths.work, device)


def announce(workspace: Workspace, teacher: Teacher, say: Say) -> float:
    """Say which teacher it is and what it reaches, with a warning where the suite expects more; returns its top-1."""
    data, device = workspace.suite.dataset, torch.device(workspace.device)
    top1, doubts = assess(teacher, data, workspace.split, workspace.paths.work, device)
    say(f"teacher {teacher.name} is {teacher.path}")
    if teacher.remark:
        say(teacher.remark)
    for line in (*accuracy_lines(teacher, top1, workspace.selection.split, data.classes), *doubts):
        say(line)
    return top1


# --- all of a suite ---


def train_teachers(selection: Selection, options: RunOptions, progress: Progress) -> int:
    """Have every teacher of a selection ready, whatever becomes of the others.

    Returns the exit code: 0, 3 where one could not be had (``progress`` says why), 128 + signal when interrupted.
    """
    stop, failed = Stop(), False
    suite, results = selection.suite.name, options.results
    with stop.listening(progress.say), Heartbeat(Paths(results, suite).running, suite) as heartbeat:
        progress = Together(progress, heartbeat)
        workspace = open_workspace(selection, options, progress.say)
        for name in selection.teachers():
            try:
                teacher = locate_teacher(workspace, name)
                if text := remark(workspace, name):
                    progress.say(text)
                teacher = teacher or obtain_teacher(workspace, name, progress, stop, train=True)
                if teacher is None:
                    break
                announce(workspace, teacher, progress.say)
            except KdbenchError as error:
                progress.say(f"kdbench: {error}")
                failed = True
    return stop.exit_code or 3 * failed
