"""The driver: plan, teachers, locks, cohorts, rows. `run` is the Python form of `kdbench run`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kdbench import checkpoint, locks, plan, provenance, registry, store, suites
from kdbench.data.sets import Split
from kdbench.errors import KdbenchError
from kdbench.identity import canonical
from kdbench.method import Method
from kdbench.plan import Cell, Position
from kdbench.suites import Pair, Suite, replace_recipe
from kdbench.teachers import Teacher, find_file, measure, open_teacher
from kdbench.train import Job, Progress, Result, load_split, resumable, train_cohort

Say = Callable[[str], None]


@dataclass(frozen=True)
class Paths:
    """Where a suite's results lie under one results folder."""

    results: Path
    suite: str

    @property
    def rows(self) -> Path:
        return self.results / f"{self.suite}.csv"

    @property
    def curves(self) -> Path:
        return self.results / f"{self.suite}.curves.csv"

    @property
    def details(self) -> Path:
        return self.results / f"{self.suite}.details"

    @property
    def work(self) -> Path:
        return self.results / ".work"

    @property
    def locks(self) -> Path:
        return self.work / "locks"

    @property
    def students(self) -> Path:
        return self.work / "students"


@dataclass
class Outcome:
    """What a run came to. ``signal``: the number of the signal that stopped it, or None."""

    cells: list[Cell]
    records: pd.DataFrame
    elsewhere: int = 0
    signal: int | None = None
    out_of_time: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some cells failed or are left, 128 + signal when interrupted."""
        if self.signal is not None:
            return 128 + self.signal
        fine = self.records["status"].isin(["ok", "skipped"]).sum()
        return 0 if fine + self.elsewhere >= len(self.cells) and not self.out_of_time else 3


@dataclass
class Session:
    """One selection, resolved: the suite, its data, its teachers and all cells."""

    suite: Suite
    paths: Paths
    split: Split
    device: str
    data_dir: Path | None
    plugins: Path | None
    methods: list[str]
    pairs: list[Pair]
    seeds: list[int]
    sets: dict[str, dict[str, list[Any]]]
    split_name: str
    weights: Path | None
    say: Say
    stop: Callable[[], bool]
    teachers: dict[str, Teacher] = field(default_factory=dict)
    teacher_top1: dict[str, float] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """The matrix; a teacher that is not there yet has no id, and its cells no result."""
        ids = {pair.teacher: self.teachers[pair.teacher].id if pair.teacher in self.teachers else None for pair in self.pairs}
        return plan.cells(
            self.suite, self.methods, self.pairs, self.seeds, self.sets, self.split_name, self.split.id, ids
        )

    def needed_teachers(self) -> list[str]:
        if not any(registry.get(name).needs.teacher for name in self.methods):
            return []
        return list(dict.fromkeys(pair.teacher for pair in self.pairs))


def prepare(
    suite: str = "digits",
    methods: Sequence[str] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    sets: Sequence[str] = (),
    epochs: int | None = None,
    split: str = "test",
    data_dir: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    results: str | Path = "results",
    device: str = "auto",
    precision: str | None = None,
    plugins: str | Path | None = None,
    say: Say | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Session:
    """Resolve a selection, checking everything that can be checked before training. Raises KdbenchError."""
    plugin_dir = Path(plugins) if plugins else None
    registry.load(plugin_dir)
    spec = suites.load(suite)
    changes = {k: v for k, v in {"epochs": epochs, "precision": precision}.items() if v is not None}
    asked = dataclasses.replace(spec, recipe=replace_recipe(spec.recipe, changes, "the command line"))
    names = plan.select_methods(methods, spec.methods)
    chosen = plan.select_pairs(asked, pairs)
    parsed = plan.parse_sets(sets, names)
    where = Path(data_dir) if data_dir else None
    session = Session(
        suite=asked,
        paths=Paths(Path(results), spec.name),
        split=load_split(spec.dataset, split, where),
        device=choose_device(device),
        data_dir=where,
        plugins=plugin_dir,
        methods=names,
        pairs=chosen,
        seeds=list(seeds) if seeds is not None else list(spec.seeds),
        sets=parsed,
        split_name=split,
        weights=Path(teacher_weights) if teacher_weights else None,
        say=say or _stderr,
        stop=stop,
    )
    for pair in chosen:  # a misspelt model or a wrong argument fails here, not after an hour
        for name in (pair.teacher, pair.student):
            _check_model(asked, name)
    store.read(session.paths.rows)
    for name in session.needed_teachers():
        teacher = locate_teacher(session, name)
        if teacher:
            session.teachers[name] = teacher
    return session


def _check_model(suite: Suite, name: str) -> None:
    from kdbench import models

    model = suite.model(name)
    models.create(model.arch, suite.dataset.classes, **model.args)


def choose_device(text: str) -> str:
    """``auto`` -> cuda:0 where there is one, else cpu. Raises KdbenchError for a device that is not there."""
    if text == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(text)
    except RuntimeError:
        raise KdbenchError(f"unknown device {text!r}; use auto, cpu or cuda:0") from None
    if kind.type == "cuda" and (not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise KdbenchError(f"there is no device {text}: torch sees {count} CUDA devices; use --device cpu or auto")
    if kind.type not in ("cpu", "cuda"):
        raise KdbenchError(f"unknown device {text!r}; use auto, cpu or cuda:0")
    return text


def _stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- teachers ---


def teacher_cell(session: Session, name: str) -> Cell:
    """The training run that makes a teacher: plain cross-entropy by the suite's teacher recipe, seed 0."""
    suite = suites.load(session.suite.name) if session.suite.name in suites.names() else session.suite
    recipe = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
    suite = dataclasses.replace(session.suite, recipe=recipe)
    pair = Pair(name, name)
    return plan.cells(suite, ["ce"], [pair], [0], {}, session.split_name, session.split.id, {name: None})[0]


def _trained_path(session: Session, name: str) -> Path:
    return session.paths.work / "teachers" / f"{name}-{teacher_cell(session, name).id}.safetensors"


def locate_teacher(session: Session, name: str) -> Teacher | None:
    """The teacher from --teacher-weights, or the one trained here before; None when it must be trained."""
    path = find_file(name, session.weights) if session.weights else _trained_path(session, name)
    if not path.is_file():
        return None
    expected = session.suite.teachers[name].top1 if name in session.suite.teachers else None
    return open_teacher(name, session.suite.model(name), path, session.suite.dataset, expected)


def ensure_teacher(session: Session, name: str, progress: Progress) -> bool:
    """Have the teacher ``name`` ready, training it if need be; False when that was interrupted (and saved)."""
    if name not in session.teachers:
        cell, path = teacher_cell(session, name), _trained_path(session, name)
        with locks.held(session.paths.locks, [cell.id], wait=True):
            if not path.is_file():
                session.say(f"training the teacher {name} for {cell.recipe.epochs} epochs")
                job = Job((cell,), None, session.data_dir, session.paths.work, session.device)
                (result,), stopped = train_cohort(job, progress, session.stop)
                if stopped:
                    return False
                if result.row["status"] != "ok":
                    raise KdbenchError(f"the teacher {name} could not be trained: {result.row['error']}")
                try:
                    checkpoint.save_weights(path, result.student)
                except OSError as error:
                    raise KdbenchError(
                        f"cannot save the teacher to {path} ({error.strerror}); free some space and run again"
                    ) from error
                checkpoint.path_of(session.paths.work, cell.id).unlink(missing_ok=True)
        teacher = locate_teacher(session, name)
        assert teacher is not None
        session.teachers[name] = teacher
    return True


def announce_teacher(session: Session, name: str) -> None:
    """Measure a teacher once and say what it reaches, loudly when that is below what the suite expects."""
    teacher = session.teachers[name]
    device = torch.device(session.device)
    top1 = measure(teacher, session.suite.dataset, session.split, session.paths.work, device)
    session.teacher_top1[name] = top1
    session.say(f"teacher {name} ({teacher.id}) reaches {top1:.2f} % top-1 on {session.split_name}")
    if teacher.expected is not None and top1 < teacher.expected - 0.05:
        session.say(
            f"WARNING: the suite expects {teacher.expected:.2f} % of {name}; this teacher is "
            f"{teacher.expected - top1:.2f} points below, so results are not comparable with published ones"
        )


# --- the run ---


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int | None]]:
    """Turn SIGINT and SIGTERM into a question that the loop asks; yields () -> signal number or None."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(number: int, frame: Any) -> None:
        if caught:  # asked twice: go at once
            raise KeyboardInterrupt
        caught.append(number)
        _stderr("stopping after this step; the state is being saved")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: caught[0] if caught else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    suite: str = "digits",
    methods: Sequence[str] | None = None,
    *,
    force: bool = False,
    max_hours: float | None = None,
    progress: Progress | None = None,
    **selection: Any,
) -> Outcome:
    """Train every missing cell of a selection and record it under ``results``; what is done is not done again.

    Takes the options of `kdbench run` (see `prepare` for the others): ``run("digits", ["kd", "bickd"], seeds=[0])``.
    Raises KdbenchError for bad input.
    """
    deadline = time.monotonic() + max_hours * 3600 if max_hours is not None else float("inf")
    with _signals() as caught:

        def stop() -> bool:
            return caught() is not None or time.monotonic() > deadline

        session = prepare(suite, methods, stop=stop, **selection)
        show = progress or Progress()
        elsewhere = 0
        if not stop() and _teachers_ready(session, show):
            elsewhere = _train_missing(session, force, show)
        cells = session.cells()
        return Outcome(
            cells=cells,
            records=_records(session, cells),
            elsewhere=elsewhere,
            signal=caught(),
            out_of_time=time.monotonic() > deadline,
        )


def _teachers_ready(session: Session, progress: Progress) -> bool:
    for name in session.needed_teachers():
        if not ensure_teacher(session, name, progress):
            return False
        announce_teacher(session, name)
    return True


def _records(session: Session, cells: Iterable[Cell]) -> pd.DataFrame:
    records = store.records(store.read(session.paths.rows))
    return records[records["cell_id"].isin([cell.id for cell in cells])]


def done_ids(records: pd.DataFrame) -> set[str]:
    """Ids of the cells that need not be trained again."""
    return set(records.loc[records["status"].isin(store.DONE), "cell_id"])


def _train_missing(session: Session, force: bool, progress: Progress) -> int:
    """Train what is missing and free; returns how many cells other processes are training."""
    cells = session.cells()
    records = _records(session, cells)
    _warn_edited(session, records)
    begun = set() if force else done_ids(records)
    source = provenance.collect(session.device)
    elsewhere = 0
    for group in plan.cohorts([c for c in cells if c.id not in begun], {}):
        with locks.held(session.paths.locks, [cell.id for cell in group]) as free:
            # Another process may have finished some between the plan and the lock.
            finished = set() if force else done_ids(_records(session, group))
            mine = [cell for cell in group if cell.id in free and cell.id not in finished]
            elsewhere += sum(cell.id not in free and cell.id not in finished for cell in group)
            for cohort in plan.cohorts(mine, positions(session.paths.work, mine)):
                for result in _train_or_split(session, cohort, progress):
                    _record(session, result, source)
                if session.stop():
                    return elsewhere
    return elsewhere


def positions(work: Path, cells: Iterable[Cell]) -> dict[str, Position]:
    """How far each cell's checkpoint is: (epoch, step)."""
    states = {cell.id: resumable(work, cell) for cell in cells}
    return {name: (state["epoch"], state["step"]) for name, state in states.items() if state}


def _train_or_split(session: Session, cells: list[Cell], progress: Progress) -> list[Result]:
    """Train a cohort; out of memory, train its halves; a single cell that does not fit is recorded so."""
    name = next((cell.teacher for cell in cells if cell.teacher), None)
    teacher = session.teachers[name] if name else None
    job = Job(tuple(cells), teacher, session.data_dir, session.paths.work, session.device, session.plugins)
    try:
        return train_cohort(job, progress, session.stop)[0]
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(cells) == 1:
        return [Result(cells[0], {"status": "oom", "error": reason, "cohort_size": 1})]
    session.say(f"out of memory with {len(cells)} students side by side; training them in two halves")
    half = len(cells) // 2
    return [
        result
        for part in (cells[:half], cells[half:])
        if not session.stop()
        for result in _train_or_split(session, part, progress)
    ]


def _warn_edited(session: Session, records: pd.DataFrame) -> None:
    for name in session.methods:
        hashes = records.loc[(records["method"] == name) & (records["status"] == "ok"), "code_hash"]
        if (hashes != registry.code_hash(name)).any():
            session.say(
                f"WARNING: the code of {name} changed since rows of this version were made; if it gives other numbers, "
                "raise its `version` and run again"
            )


def _record(session: Session, result: Result, source: Mapping[str, Any]) -> None:
    """Write one result: details, student and curves first, its row last, and only then drop its checkpoint."""
    cell, paths, status = result.cell, session.paths, result.row["status"]
    method = cell.build_method()
    before = store.read(paths.rows)
    row: dict[str, Any] = dict.fromkeys(store.COLUMNS)
    row.update(source)
    row.update(_identity_columns(cell, method), **_teacher_columns(session, cell), **result.row)
    row.update(
        run_id=os.urandom(6).hex(),
        attempt=int((before["cell_id"] == cell.id).sum()) + 1,
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        code_hash=registry.code_hash(cell.method),
    )
    if status == "ok":
        try:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **result.details)  # type: ignore[arg-type]
            checkpoint.write_atomic(paths.details / f"{cell.id}.npz", buffer.getvalue())
            checkpoint.save_weights(paths.students / f"{cell.id}.safetensors", result.student)
        except OSError as error:
            raise KdbenchError(
                f"cannot write {error.filename or paths.details} ({error.strerror}); free or fix it and type the same "
                "command again: no training is lost"
            ) from error
    if status in store.DONE:
        curves = [
            {"cell_id": cell.id, "run_id": row["run_id"], "epoch": epoch, "term": term, "value": value}
            for epoch, term, value in result.curves
        ]
        if curves:
            store.append(paths.curves, curves, store.CURVE_COLUMNS)
    store.append(paths.rows, [row])
    if status != "interrupted":
        checkpoint.path_of(paths.work, cell.id).unlink(missing_ok=True)
    session.say(_line(row))


def _identity_columns(cell: Cell, method: Method) -> dict[str, Any]:
    return {
        "schema": store.SCHEMA,
        "cell_id": cell.id,
        "suite": cell.suite,
        "dataset": cell.dataset.name,
        "split": cell.split,
        "teacher": cell.teacher,
        "teacher_id": cell.teacher_id,
        "student": cell.student,
        "method": cell.method,
        "method_version": method.version,
        "params": canonical(method.params),
        "recipe_id": cell.recipe_id,
        "seed": cell.seed,
        "variant": cell.variant,
        "default": not cell.variant,
    }


def _teacher_columns(session: Session, cell: Cell) -> dict[str, Any]:
    if cell.teacher is None:
        return {"teacher_top1": None, "teacher_expected": None}
    teacher = session.teachers[cell.teacher]
    return {"teacher_top1": session.teacher_top1[cell.teacher], "teacher_expected": teacher.expected}


def _line(row: Mapping[str, Any]) -> str:
    """One finished cell, in words."""
    what = " ".join(str(row[k]) for k in ("method", "variant") if row[k])
    pair = f"{row['teacher']} -> {row['student']}" if row["teacher"] else row["student"]
    if row["status"] == "ok":
        text = f"top-1 {row['top1']:.2f} %, {row['train_s']:.0f} s"
    else:
        text = f"{row['status']}: {row['error'] or 'saved, type the same command to go on'}"
    return f"{what}, {pair}, seed {row['seed']}: {text}"
