"""A finished cell's student as a file or folder that plain timm or no timm loads, with a model card; or in a hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.runner.export import hub
from kdbench.runner.export.card import card
from kdbench.runner.export.choose import choose
from kdbench.runner.export.facts import read_description, trained
from kdbench.runner.export.folder import write_folder
from kdbench.runner.export.formats import FORMATS, Export, load_student, write
from kdbench.runner.export.usage import usage
from kdbench.runner.paths import Paths
from kdbench.suites import Suite, name_of
from kdbench.utils.hashing import canonical
from kdbench.utils.state_dicts import load_weights


def export(
    which: str | Sequence[Any],
    file: str | Path | None = None,
    results: str | Path = "results",
    *,
    suite: str | Path | Suite | None = None,
    split: str | None = None,
    push: str | None = None,
    private: bool = False,
) -> str:
    """Write the student of a finished cell, with a model card; returns in words what it is and how it is loaded.

    which: the beginning of the cell's id; or method, pair (``teacher:student`` or the two names) and seed.
    file: its suffix says the form (`formats.FORMATS`); without one, a folder that ``local-dir:`` loads. None: push it
        alone.
    suite (name, file or object), split: those of the cell, where several have that method, pair and seed.
    push: OWNER/NAME of a repository of the hub; private: whether it is made a private one.
    Raises KdbenchError for a cell that is unknown, ambiguous or unfinished, for a student that is not here, and for a
    file that exists or cannot be written.
    """
    path = None if file is None else Path(file)
    _check(path, push, private)
    row = choose(which, Path(results), None if suite is None else name_of(suite), split)
    student = _read(row, Path(results))
    facts = trained(row)
    words = [_headline(path or push or "", facts)]
    if not student.description.whole:
        words.append(
            f"WARNING: {row['method']} deploys more than this network, which alone does not reach that"
        )
    if student.description.class_names is None:
        words.append("its file does not say the names of its classes: an older version of kdbench trained it")
    if path is not None:
        _write(student, facts, path)
        words += ["", usage(student.description, _name(path))]
    if push is not None:
        words += ["", f"pushed to {_push(student, facts, push, private)}"]
    return "\n".join(words)


def _check(path: Path | None, push: str | None, private: bool) -> None:
    """What can be refused before anything is read."""
    if private and push is None:
        raise KdbenchError("--private is for a repository of the hub; name it with --push OWNER/NAME")
    if path is None and push is None:
        raise KdbenchError("name the file to write, or a repository of the hub with --push OWNER/NAME")
    if push is not None:
        hub.check_name(push)
    if path is None:
        return
    if path.suffix and path.suffix not in FORMATS:
        forms = ", ".join(FORMATS)
        raise KdbenchError(f"{path} must end in one of {forms}, or in nothing for a folder that timm loads")
    for each in (path, _card_file(path)):
        if each.exists():
            raise KdbenchError(f"{each} exists; name another file, or remove it first")


def _card_file(path: Path) -> Path:
    """The card beside a file; in a folder it is README.md."""
    return path.with_name(f"{path.name}.md") if path.suffix else path / "README.md"


def _name(path: Path) -> str:
    """The path as code names it."""
    return str(path) if path.suffix else f"local-dir:{path}"


def _read(row: Mapping[str, Any], results: Path) -> Export:
    """The student of a row."""
    source = Paths(results, row["suite"]).students / f"{row['cell_id']}.safetensors"
    if not source.is_file():
        raise KdbenchError(
            f"the student of {row['cell_id']} is not on this machine ({source} is not there); train it again with "
            f"`kdbench run --suite {row['suite']} ... --force`"
        )
    description, state = read_description(source, row), load_weights(source)
    model = load_student(description, state, row["student"], source)
    facts = {**description.header(), "trained": canonical(trained(row))}
    return Export(model, state, description, facts)


def _headline(target: object, facts: Mapping[str, Any]) -> str:
    return (
        f"{target}: {facts['student']} of {facts['cell_id']} ({facts['method']}, seed {facts['seed']}), "
        f"top-1 {facts['top1']:.2f} % on {facts['split']}"
    )


def _write(student: Export, facts: Mapping[str, Any], path: Path) -> None:
    """Write the file and its card, or the folder with both."""
    code = usage(student.description, path.name if path.suffix else "local-dir:FOLDER")
    text = card(student.description, facts, code)
    try:
        with _finished(path) as draft:
            if path.suffix:
                write(student, draft)
            else:
                write_folder(student, text, draft)
        if path.suffix:
            with _finished(_card_file(path)) as draft:
                draft.write_text(text, "utf-8")
    except OSError as error:
        raise KdbenchError(f"cannot write {path} ({error.strerror})") from error


@contextmanager
def _finished(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block is done without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as place:
        yield Path(place) / path.name
        os.rename(Path(place) / path.name, path)


def _push(student: Export, facts: Mapping[str, Any], repository: str, private: bool) -> str:
    text = card(student.description, facts, usage(student.description, f"hf-hub:{repository}"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "student"
        write_folder(student, text, folder)
        return hub.push(folder, repository, _headline(repository, facts), private)
