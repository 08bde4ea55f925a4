"""Which of several teachers of one name is used: those imported, and the one trained here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.runner.teachers import accuracy, locate_teacher, trained_path
from kdbench.runner.workspace import Workspace
from kdbench.teachers import catalog
from kdbench.teachers.weights import Teacher, open_teacher
from kdbench.utils.files import file_stem


def use(workspace: Workspace, name: str, start: str) -> str:
    """Have the teacher ``name`` be the one whose hash begins with ``start``; returns in words what it is.

    Raises KdbenchError where no file of that name has such a hash, or several have.
    """
    here = {teacher.id: teacher for teacher in _teachers(workspace, name)}
    fitting = [teacher for key, teacher in here.items() if key.startswith(start)]
    if len(fitting) != 1:
        known = ", ".join(here) or "none"
        raise KdbenchError(
            f"{len(fitting) or 'no'} hashes of the teacher {name} begin with {start!r}; those that are here: {known}"
        )
    put_first(workspace, fitting[0])
    return (
        f"{name} is {fitting[0].id} from here on: {accuracy(workspace, fitting[0]):.2f} %, {fitting[0].path}"
    )


def put_first(workspace: Workspace, teacher: Teacher) -> None:
    """Have a teacher, whose file is in the folder of teachers, be the one that is used."""
    work, data = workspace.paths.work, workspace.suite.dataset
    catalog.assign(work, data.name, teacher.name, teacher.model, teacher.path, workspace.data_id)


def remove(workspace: Workspace, name: str, start: str = "") -> str:
    """Take an import of the teacher ``name`` out of the list, by the beginning of its hash, or the one in use.

    Its file stays. Returns in words what was removed and what is used now. Raises KdbenchError where there is none.
    """
    work, data = workspace.paths.work, workspace.suite.dataset
    model = workspace.suite.model(name)
    entries = catalog.matching_entries(work, data.name, name, model, workspace.data_id)
    fitting = [
        e
        for e in entries
        if Path(e["file"]).stem.removeprefix(f"{Path(file_stem(name)).name}-").startswith(start)
    ]
    if not fitting or (start and len(fitting) > 1):
        count = "several imports" if fitting else "no import"
        begins = f" whose hash begins with {start!r}" if start else ""
        raise KdbenchError(
            f"{count} of the teacher {name}{begins} for this data; `kdbench teachers list` shows all, and where the "
            "file of one that was trained here is deleted, the next run trains it again"
        )
    catalog.withdraw(work, data.name, name, fitting[-1])
    removed = f"{catalog.folder(work) / fitting[-1]['file']} is no longer the teacher {name} (the file stays)"
    try:
        used = locate_teacher(workspace, name)
    except KdbenchError as error:  # the file of the one before is gone, too
        return f"{removed}; {error}"
    return f"{removed}; " + (f"{used.path} is" if used else "the next run trains or fetches one")


def keep_better(workspace: Workspace, before: Teacher | None, imported: Teacher, top1: float) -> str:
    """After an import that reaches ``top1``: use the teacher of before where that reaches more, and say so; else ''."""
    if before is None or before.id == imported.id:
        return ""
    reached = accuracy(workspace, before)
    if reached <= top1:
        return ""
    put_first(workspace, before)
    return (
        f"WARNING: {before.name} stays {before.id}, which reaches {reached:.2f} %; to use this import nevertheless, "
        f"type `kdbench teachers use {imported.name} {imported.id}` (with the same --suite)"
    )


def _teachers(workspace: Workspace, name: str) -> Iterator[Teacher]:
    """Every teacher of that name whose file is here."""
    work, data, model = workspace.paths.work, workspace.suite.dataset, workspace.suite.model(name)
    entries = catalog.matching_entries(work, data.name, name, model, workspace.data_id)
    files = [catalog.folder(work) / entry["file"] for entry in entries]
    expected = workspace.suite.teachers[name].top1 if name in workspace.suite.teachers else None
    for path in dict.fromkeys([*files, trained_path(workspace, name)]):
        if path.is_file():
            yield open_teacher(name, model, path, data, expected)
