"""Teachers of a session: fetched or trained where missing, measured and announced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import timm
import torch

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.runner.session import Session, locate_teacher, pretrained_path, teacher_cell, trained_path
from kdbench.teachers import catalog
from kdbench.teachers.accuracy import accuracy_lines, assess, measure
from kdbench.teachers.weights import Teacher, open_teacher
from kdbench.train.callbacks import Progress
from kdbench.train.checkpoint import checkpoint_path
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils import locks
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status


def ensure_teacher(session: Session, name: str, progress: Progress, train: bool = False) -> bool:
    """Have the teacher ``name`` ready, fetching or training it if need be; False when that was interrupted (and saved).

    Where the suite names weights that timm has, the teacher is trained only if ``train`` says so. Raises KdbenchError
    when it cannot be had.
    """
    if name not in session.teachers:
        path = pretrained_path(session, name)
        if path is not None and not train:
            _fetch(session, name, path)
        elif not _train(session, name, progress):
            return False
        elif path is not None:  # the user asked for this one, so it goes before timm's
            data, model = session.suite.dataset, session.suite.model(name)
            trained = trained_path(session, name)
            catalog.assign(session.paths.work, data.name, name, model, trained, session.data_id)
        teacher = locate_teacher(session, name)
        assert teacher is not None
        session.teachers[name] = teacher
    return True


def _train(session: Session, name: str, progress: Progress) -> bool:
    cell, path = teacher_cell(session, name), trained_path(session, name)
    with locks.held(session.paths.locks, [cell.id], wait=True):
        if path.is_file():
            return True
        session.say(f"training the teacher {name} for {cell.recipe.epochs} epochs")
        job = Job((cell,), None, session.data_dir, session.paths.work, session.device)
        try:
            (result,), stopped = train_cohort(job, progress, session.stop)
        except torch.OutOfMemoryError as error:
            raise KdbenchError(
                f"the teacher {name} does not fit the memory of {session.device}; train it on another device, or give "
                "a smaller batch_size in [teacher_recipe] of a suite of your own"
            ) from error
        if stopped:
            return False
        if result.row["status"] != Status.OK:
            raise KdbenchError(f"the teacher {name} could not be trained: {result.row['error']}")
        try:
            save_weights(path, result.student)
        except OSError as error:
            raise KdbenchError(
                f"cannot save the teacher to {path} ({error.strerror}); free some space and run again"
            ) from error
        checkpoint_path(session.paths.work, cell.id).unlink(missing_ok=True)
    return True


def _fetch(session: Session, name: str, path: Path) -> None:
    """Keep the weights that timm has under the suite's tag. Raises KdbenchError with the other ways where it fails."""
    tag = session.suite.teachers[name].pretrained or ""
    if not timm.is_model_pretrained(tag):
        raise unknown(
            "pretrained weights", tag, timm.list_pretrained(), f" (of the teacher {name}, by timm's name)"
        )
    session.say(f"fetching the teacher {name}: {tag} from timm")
    try:
        save_weights(path, timm.create_model(tag, pretrained=True).state_dict())
    except Exception as error:  # a hub that cannot be reached fails in many ways
        reason = first_line(error).rstrip(".")
        raise KdbenchError(
            f"the teacher {name} could not be fetched: timm.create_model({tag!r}, pretrained=True) says: {reason}; go "
            f"online, or give its file with `kdbench teachers import FILE --name {name}` or --teacher-weights FOLDER, "
            "or train it with `kdbench teachers train` (each with the same --suite)"
        ) from error


def accuracy(session: Session, teacher: Teacher) -> float:
    """Top-1 in percent on the session's split; measured once, then kept under the weights' hash."""
    device = torch.device(session.device)
    return measure(teacher, session.suite.dataset, session.split, session.paths.work, device)


def announce_teacher(session: Session, name: str) -> None:
    """Say which teacher it is and what it reaches, loudly when that is below what the suite expects."""
    teacher = session.teachers[name]
    data, device = session.suite.dataset, torch.device(session.device)
    top1, doubts = assess(teacher, data, session.split, session.paths.work, device)
    session.teacher_top1[name] = top1
    session.say(f"teacher {name} is {teacher.path}")
    if teacher.remark:
        session.say(teacher.remark)
    for line in (*accuracy_lines(teacher, top1, session.split_name, data.classes), *doubts):
        session.say(line)


def listing(session: Session) -> Iterator[tuple[str, Teacher | None, bool]]:
    """Name, teacher (None: not here yet) and whether `run` takes it: the suite's, then all imported for its data."""
    work, data = session.paths.work, session.suite.dataset
    imported = {} if session.weights else catalog.entries(work, data.name)
    for name in dict.fromkeys([*session.needed_teachers(), *imported]):
        model = session.suite.model(name)
        entries = (
            catalog.matching_entries(work, data.name, name, model, session.data_id)
            if name in imported
            else []
        )
        if not entries and name not in session.needed_teachers():
            continue
        used = locate_teacher(session, name)
        yield name, used, True
        for path in [
            *(catalog.folder(work) / entry["file"] for entry in entries),
            trained_path(session, name),
        ]:
            if used is not None and path != used.path and path.is_file():
                yield name, open_teacher(name, model, path, data, used.expected), False
