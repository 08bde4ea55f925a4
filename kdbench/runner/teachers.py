"""The teachers of a selection: which file each one is, how timm's weights are fetched, what it reaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import timm
import torch

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.models import pretrained
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection, teacher_recipe
from kdbench.runner.networks import as_it_is
from kdbench.runner.workspace import Say, Workspace
from kdbench.suites import Pair
from kdbench.teachers import catalog
from kdbench.teachers.accuracy import accuracy_lines, assess, measure
from kdbench.teachers.weights import Teacher, find_file, open_teacher
from kdbench.utils.files import file_stem
from kdbench.utils.hashing import digest
from kdbench.utils.state_dicts import save_weights

# --- which file ---


def teacher_cell(workspace: Workspace, name: str) -> Cell:
    """The training run that makes a teacher: plain cross-entropy by its recipe, seed 0."""
    suite, split = workspace.suite, workspace.selection.split
    suite = dataclasses.replace(suite, recipe=teacher_recipe(suite, suite.model(name)))
    selection = Selection(suite, ["ce"], [Pair(name, name)], [0], split=split)
    return plan_cells(selection, workspace.split.id, {name: None})[0]


def trained_path(workspace: Workspace, name: str) -> Path:
    """Where a teacher's weights are saved that is trained here."""
    return _folder(workspace) / f"{file_stem(name)}-{teacher_cell(workspace, name).id}.safetensors"


def pretrained_path(workspace: Workspace, name: str) -> Path | None:
    """Where the weights are saved that timm has for a teacher; None where the suite names none."""
    known = workspace.suite.teachers.get(name)
    return (
        _folder(workspace) / f"{file_stem(name)}-{known.pretrained}.safetensors"
        if known and known.pretrained
        else None
    )


def _built(workspace: Workspace, name: str) -> Path:
    """The file of a pretrained network as the suite builds it (`as_it_is`); written where it is not there."""
    model, classes = workspace.suite.model(name), workspace.suite.dataset.classes
    path = _folder(workspace) / f"{file_stem(name)}-{digest(model.identity())}.safetensors"
    if not path.is_file():
        place = pretrained.folder(workspace.paths.work)
        try:
            save_weights(path, pretrained.load(model, classes, place).state_dict())
        except OSError as error:
            raise KdbenchError(
                f"cannot write {path} ({error.strerror}); free some space and run again"
            ) from error
    return path


def _folder(workspace: Workspace) -> Path:
    return catalog.folder(workspace.paths.work)


def locate_teacher(workspace: Workspace, name: str) -> Teacher | None:
    """The teacher, where it is there; None where it must be trained or fetched.

    In order of precedence, highest first: --teacher-weights, the last one imported, the pretrained weights that the
    suite names where they know the classes, else the one trained here. With --teacher-split always the last.
    """
    suite, work, weights = workspace.suite, workspace.paths.work, workspace.options.teacher_weights
    dataset, model = suite.dataset, suite.model(name)
    if workspace.options.teacher_split:
        path = trained_path(workspace, name)
    elif weights:
        path = find_file(name, weights)
    else:
        path = catalog.assigned_file(work, dataset.name, name, model, workspace.data_id) or _own(
            workspace, name
        )
    if not path.is_file():
        return None
    expected = suite.teachers[name].top1 if name in suite.teachers else None
    return open_teacher(name, model, path, dataset, expected)


def _own(workspace: Workspace, name: str) -> Path:
    if as_it_is(workspace.suite.model(name), workspace.suite):
        return _built(workspace, name)
    return pretrained_path(workspace, name) or trained_path(workspace, name)


def remark(workspace: Workspace, name: str) -> str:
    """What `teachers.catalog.data_remark` says of a teacher, where the user did not say which it is."""
    if workspace.options.teacher_weights or workspace.options.teacher_split:
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


# --- one to download ---


def fetch(workspace: Workspace, name: str, path: Path, say: Say) -> None:
    """Save at ``path`` the weights that timm has under the suite's tag.

    Raises KdbenchError with the other ways where it fails.
    """
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
