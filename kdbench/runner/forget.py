"""Move cells out of the results into an archive, and back: rows, curves, details, students and checkpoints.

The archive is itself a folder of results. Everything is copied before anything goes, so that a crash loses nothing: the
same command, typed again, completes the move.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.results import archive, store
from kdbench.results.choice import Choice
from kdbench.runner.paths import Paths
from kdbench.runner.submitted import read_notes
from kdbench.train.saved import checkpoint_path, note_path
from kdbench.utils import locks

FOLDER = "forgotten"


def select(results: Path, suite: str, prefixes: Sequence[str], choice: Choice) -> dict[str, list[str]]:
    """suite -> the ids of the cells to move: those whose id begins so, of the suite ('': any), whose record is chosen.

    Raises KdbenchError where a beginning fits no cell or several, and where nothing is chosen.
    """
    names = [suite] if suite else store.suites(results)
    records = {name: store.records(store.load(store.file_of(results, name))) for name in names}
    known = {(name, str(cell)) for name, rows in records.items() for cell in rows["cell_id"]}
    ids = {_unique(prefix, known, results) for prefix in prefixes}
    chosen: dict[str, list[str]] = {}
    for name, rows in records.items():
        if prefixes:
            rows = rows[[(name, cell) in ids for cell in rows["cell_id"]]]
        if len(rows := choice.of(rows)):
            chosen[name] = list(rows["cell_id"])
    if not chosen:
        everything = pd.concat(records.values()) if records else pd.DataFrame()
        if len(everything):
            raise choice.refusal(everything)
        raise KdbenchError(f"there are no rows of {suite or 'any suite'} in {results}; nothing is moved")
    return chosen


def _unique(prefix: str, known: Collection[tuple[str, str]], results: Path) -> tuple[str, str]:
    fitting = sorted(pair for pair in known if pair[1].startswith(prefix))
    if len(fitting) != 1:
        shown = ", ".join(cell for _, cell in fitting[:5]) or "`kdbench status --cells` lists them"
        count = len(fitting) or "no"
        raise KdbenchError(f"{count} cells in {results} have an id that begins with {prefix!r} ({shown})")
    return fitting[0]


def forget(results: Path, chosen: dict[str, list[str]]) -> str:
    """Move these cells to a new folder below ``results``/forgotten; return in words what was done, and the undo.

    Raises KdbenchError for a cell that is being trained, and where a file cannot be written; then the files that are
    there stay.
    """
    ids = [cell for cells in chosen.values() for cell in cells]
    place = _new_folder(results / FOLDER)
    rows = 0
    with _resting(Paths(results, ""), ids):
        try:
            for suite, cells in chosen.items():
                rows += _copy(results, place, suite, cells)
            for suite, cells in chosen.items():
                _drop(results, suite, cells)
        except OSError as error:
            raise KdbenchError(
                f"cannot write {error.filename or place} ({error.strerror}); free or fix it and type the same command "
                "again: nothing is lost"
            ) from error
    command = f"kdbench forget --undo {shlex.quote(str(place))} --results {shlex.quote(str(results))}"
    return f"{rows} rows of {len(ids)} cells are moved to {place}; `{command}` brings them back"


def undo(place: Path, results: Path) -> str:
    """Add what an archive holds to ``results`` again, less what is there; the archive stays. Returns it in words.

    Raises KdbenchError for a folder that is no archive.
    """
    names = store.suites(place)
    if not names:
        archives = sorted(str(folder) for folder in (results / FOLDER).glob("*/"))
        remedy = f"--undo takes one of {', '.join(archives)}" if archives else "nothing was forgotten here"
        raise KdbenchError(f"{place} is no folder that `kdbench forget` has written; {remedy}")
    rows = 0
    for suite in names:
        source, target = Paths(place, suite), Paths(results, suite)
        ids = set(store.load(source.rows)["cell_id"])
        with _resting(target, sorted(ids)):
            for old, new in zip(_files(source, ids), _files(target, ids), strict=True):
                if old.exists() and not new.exists():
                    _link(old, new)
            archive.restore(source.curves, target.curves, store.CURVE_COLUMNS)
            rows += archive.restore(source.rows, target.rows, store.COLUMNS)
    return f"{rows} rows are back in {results}; {place} stays and may be deleted"


@contextlib.contextmanager
def _resting(paths: Paths, ids: Sequence[str]) -> Iterator[None]:
    """Within the block no process trains these cells. Raises KdbenchError where one does."""
    submitted = {cell for note in read_notes(paths.slurm) for cell in note["cells"]}
    with locks.held(paths.locks, ids) as mine:
        busy = (set(ids) - set(mine)) | (set(ids) & submitted)
        if busy:
            raise KdbenchError(
                f"{len(busy)} of these cells are being trained (see `kdbench status`), and nothing is moved; stop that "
                "first"
            )
        yield


def _new_folder(parent: Path) -> Path:
    """A folder that is not there, named after the time."""
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    numbered = (parent / f"{name}-{number}" for number in itertools.count(2))
    return next(place for place in itertools.chain([parent / name], numbered) if not place.exists())


def _files(paths: Paths, ids: Collection[str]) -> list[Path]:
    """Where the files of these cells are, beside rows and curves."""
    return [
        place
        for cell in sorted(ids)
        for place in (
            paths.details / f"{cell}.npz",
            paths.students / f"{cell}.safetensors",
            checkpoint_path(paths.work, cell),
            note_path(paths.work, cell),
        )
    ]


def _copy(results: Path, place: Path, suite: str, ids: Collection[str]) -> int:
    """Copy everything of these cells; return the number of rows."""
    source, target = Paths(results, suite), Paths(place, suite)
    for old, new in zip(_files(source, ids), _files(target, ids), strict=True):
        if old.exists():
            _link(old, new)
    file = store.file_of(results, suite)
    archive.copy(store.curves_of(file), ids, store.CURVE_COLUMNS, target.curves)
    return archive.copy(file, ids, store.COLUMNS, target.rows)


def _drop(results: Path, suite: str, ids: Collection[str]) -> None:
    """Remove these cells: rows first, since they say what there is. What rows of another suite need stays."""
    file = store.file_of(results, suite)
    archive.drop(file, ids, store.COLUMNS)
    archive.drop(store.curves_of(file), ids, store.CURVE_COLUMNS)
    others = [name for name in store.suites(results) if name != suite]
    needed = {cell for name in others for cell in store.load(store.file_of(results, name))["cell_id"]}
    paths = Paths(results, suite)
    details = [paths.details / f"{cell}.npz" for cell in ids]
    for path in [*details, *_files(paths, set(ids) - needed)]:
        path.unlink(missing_ok=True)


def _link(old: Path, new: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)
