"""Teachers from the literature's files: what network it is, its accuracy, and where it is saved.

A checkpoint says nothing of its architecture but the names and shapes of its tensors. These are compared with those of
networks built without memory (torch's meta device): the suite's teachers first, then its students, kdbench's own
networks, and of timm's those whose first and last layer are named as in the file.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models.cifar.base import ENTRIES
from kdbench.plan.selection import Selection
from kdbench.runner.choose_teachers import keep_better, put_first
from kdbench.runner.options import RunOptions
from kdbench.runner.progress import to_stderr
from kdbench.runner.teachers import locate_teacher
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites import ModelSpec, Suite
from kdbench.teachers import catalog
from kdbench.teachers.accuracy import accuracy_lines, assess
from kdbench.teachers.fitting import Part, Problems, count_keys, describe, parts, smallest_mismatch
from kdbench.teachers.weights import SUFFIXES, Teacher, open_teacher
from kdbench.utils.files import file_stem
from kdbench.utils.state_dicts import save_weights, state_dicts


def import_teachers(
    files: Iterable[Path],
    selection: Selection,
    options: RunOptions,
    say: Say,
    warn: Say = to_stderr,
    name: str | None = None,
) -> list[str]:
    """Recognise, measure and keep every teacher of ``files`` (and of tar archives among them).

    selection: a suite with the teachers' data set. say: gets what each teacher reaches; warn: notes on data and files.
    name: the suite's name of the one teacher that is given, instead of recognising it.
    Returns what went wrong, a sentence per file; the other files are imported all the same. Raises KdbenchError when
    the data cannot be had.
    """
    files = list(files)
    if name is not None and len(files) > 1:
        raise KdbenchError("--name is the name of one teacher; import the files one by one")
    workspace = open_workspace(selection, options, warn)
    failures = []
    for path in files:
        try:
            for file in _unpacked(path):
                try:
                    _bring(workspace, file, name, say, warn)
                except KdbenchError as error:
                    failures.append(str(error))
        except KdbenchError as error:
            failures.append(str(error))
    return failures


def _unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or the weights in an archive of them, each of which is there until the next is taken."""
    if not path.is_file() or not tarfile.is_tarfile(path):
        yield path
        return
    try:
        with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as place:
            members = [
                m
                for m in archive.getmembers()
                if m.isfile() and m.name.endswith(SUFFIXES) and not Path(m.name).name.startswith("._")
            ]
            for member in members:
                archive.extract(member, place, filter="data")
                yield Path(place) / member.name
                (Path(place) / member.name).unlink()
    except (OSError, tarfile.TarError) as error:
        raise KdbenchError(f"the archive {path} cannot be unpacked ({error})") from error
    if not members:
        raise KdbenchError(f"the archive {path} holds no {' or '.join(SUFFIXES)} file")


def _bring(workspace: Workspace, file: Path, name: str | None, say: Say, warn: Say) -> None:
    suite, work = workspace.suite, workspace.paths.work
    data = suite.dataset
    name = name or recognise(parts(state_dicts(file)), suite, file)
    model = suite.model(name)
    expected = suite.teachers[name].top1 if name in suite.teachers else None
    source = open_teacher(name, model, file, data, expected)
    if source.remark:
        warn(source.remark)
    saved = catalog.folder(work) / f"{file_stem(name)}-{source.id}.safetensors"
    if not saved.is_file():
        try:
            save_weights(saved, source.net(data).model.state_dict())
        except OSError as error:
            raise KdbenchError(f"cannot write {saved} ({error.strerror}); nothing was imported") from error
    warn(f"{file} is {name}: measuring it on {len(workspace.split.evaluation):,} images")
    teacher = open_teacher(name, model, saved, data, expected)
    if teacher.id != source.id:
        raise KdbenchError(f"{saved} holds other weights than its name says; move it away and import again")
    top1, doubts = assess(teacher, data, workspace.split, work, torch.device(workspace.device))
    before = _used(workspace, name)
    put_first(workspace, teacher)
    for line in (*accuracy_lines(teacher, top1, workspace.selection.split, data.classes), *doubts):
        say(line)
    if text := keep_better(workspace, before, teacher, top1):
        say(text)


def _used(workspace: Workspace, name: str) -> Teacher | None:
    """The teacher that a run would use now; None where there is none, or its file is gone."""
    try:
        return locate_teacher(workspace, name)
    except KdbenchError:
        return None


def recognise(candidates: Sequence[Part], suite: Suite, file: Path) -> str:
    """The name of the network that a part of a file is the weights of.

    Raises KdbenchError where several fit equally well, and where none does, naming the nearest and what differs.
    """
    classes, seen = suite.dataset.classes, dict[str, Problems]()
    for names in _circles(candidates, suite):
        fresh = [name for name in names if name not in seen]
        seen.update(
            {name: smallest_mismatch(_skeleton(suite.model(name), classes), candidates) for name in fresh}
        )
        fitting = [name for name in fresh if not seen[name]]
        if len(fitting) > 1:
            raise KdbenchError(
                f"{file} fits {', '.join(fitting[:-1])} and {fitting[-1]}; say which with --name {fitting[0]}"
            )
        if fitting:
            return fitting[0]
    best = min(seen, key=lambda name: count_keys(seen[name]))
    raise KdbenchError(
        f"{file} fits no network that kdbench knows with {classes} classes; the nearest is {best}, but the file "
        f"{describe(seen[best])}"
    )


def _circles(candidates: Sequence[Part], suite: Suite) -> Iterator[list[str]]:
    """Names in rising distance from the suite; an outer circle is looked at only where no inner one fits."""
    yield list(dict.fromkeys(pair.teacher for pair in suite.pairs))
    yield list(dict.fromkeys(pair.student for pair in suite.pairs))
    yield list(ENTRIES)
    yield [
        name
        for name in models.names()
        if name not in ENTRIES and _ends_fit(name.removeprefix("timm/"), candidates)
    ]


def _ends_fit(name: str, candidates: Sequence[Part]) -> bool:
    """Whether the file has the first and last layers that timm's registry tells of the network, without building it."""
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return False
    layers: list[str] = []
    for part in (config.first_conv, config.classifier):
        layers += part if isinstance(part, list | tuple) else [part] if part else []
    return any(all(f"{layer}.weight" in part.state for layer in layers) for part in candidates)


def _skeleton(spec: ModelSpec, classes: int) -> Mapping[str, Tensor]:
    """Names and shapes of a network's state dict, without its memory; empty where it cannot be built so."""
    try:
        with torch.device("meta"):
            return models.create(spec.arch, classes, **spec.args).state_dict()
    except KdbenchError:
        return {}
