"""What the missing cells of a selection take and cost, from a few timed steps of each kind of cohort."""

from __future__ import annotations

import contextlib
import heapq
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench import models
from kdbench.bench.estimate import PIXELS, STEPS, step_and_evaluation, training_hours
from kdbench.bench.workload import DATA, TEST
from kdbench.contract import toy_suite
from kdbench.data.loading import load_split
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.plan.selection import Selection
from kdbench.results import store
from kdbench.runner.executors import process_devices
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.missing import find_missing
from kdbench.runner.options import RunOptions
from kdbench.runner.teachers import pretrained_path, teacher_cell
from kdbench.runner.workspace import Say, Workspace, open_workspace
from kdbench.suites import DataSpec
from kdbench.train.checkpoint import positions
from kdbench.train.job import Job
from kdbench.train.recorded_steps import settled
from kdbench.train.schedule import evaluates
from kdbench.utils.environment import collect
from kdbench.utils.files import write_atomic
from kdbench.utils.hashing import digest
from kdbench.utils.text import grid
from kdbench.utils.threads import thread_share

JOBS = (1, 8, 64)  # numbers of jobs at a time that are always listed


@dataclass(frozen=True)
class Timed:
    """One kind of cohort: milliseconds per step, and seconds of its students' evaluation per image."""

    step_ms: float
    image_s: float

    def hours(self, cohort: Sequence[Cell], images: tuple[int, int], epochs_done: int) -> float:
        """Of such a cohort on (train, evaluated) images, from an epoch on."""
        recipe, (train, evaluated) = cohort[0].recipe, images
        measured = sum(evaluates(recipe, epoch) for epoch in range(epochs_done, recipe.epochs))
        own = training_hours(self.step_ms, train, recipe.batch_size, recipe.epochs - epochs_done)
        return own + self.image_s * evaluated * measured / 3600


def report(selection: Selection, options: RunOptions, say: Say, price: float | None = None) -> str:
    """Hours of the missing teachers and cells by the number of jobs that train at a time, as text.

    price: of an hour of what one job gets; the table then has the cost of so many until the last job ends.
    Raises KdbenchError for a method that cannot be timed.
    """
    workspace = open_workspace(selection, options, lambda text: None)
    inputs = find_inputs(workspace, lambda text: None)
    missing = find_missing(store.read(workspace.paths.rows), inputs.cells(), options.force).cells
    reached = positions(workspace.paths.work, missing)
    teachers, cohorts = _untrained(inputs), form_cohorts(missing, reached, len(workspace.devices))
    slots = process_devices(workspace.devices, options.jobs, len(cohorts))
    images = len(workspace.split.train), len(workspace.split.evaluation)
    with _threads(slots):
        timings = _Timings(workspace, say)
        first = [timings.of(cohort).hours(cohort, images, 0) for cohort in teachers]
        then = [
            timings.of(cohort).hours(cohort, images, reached.get(cohort[0].id, (0, 0))[0])
            for cohort in cohorts
        ]
        place = collect(workspace.device)
        where = f"{place['device']} with {torch.get_num_threads()} threads a job"
    listed = sorted({*JOBS, len(slots)} if options.executor in (None, "processes") else JOBS)
    return (
        f"timed on {where}, images in memory: {len(teachers)} teachers to train {sum(first):.2f} hours, "
        f"{len(cohorts)} cohorts {sum(then):.2f} hours\n{_table(first, then, listed, price)}"
    )


def makespan(hours: Sequence[float], jobs: int) -> float:
    """When the last of these jobs ends, where ``jobs`` at a time train in the order given."""
    ends = [0.0] * jobs
    for each in hours:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def _table(first: Sequence[float], then: Sequence[float], jobs: Sequence[int], price: float | None) -> str:
    rows: list[Sequence[str]] = [("jobs at a time", "hours", *(["cost"] if price is not None else []))]
    for count in jobs:
        hours = makespan(first, count) + makespan(then, count)
        cost = [f"{hours * count * price:.2f}"] if price is not None else []
        rows.append((str(count), f"{hours:.2f}", *cost))
    return grid(rows)


def _untrained(inputs: Inputs) -> list[list[Cell]]:
    """A cohort for each teacher that is trained first."""
    workspace = inputs.workspace
    names = [name for name in workspace.selection.teachers() if name not in inputs.teachers]
    return [[teacher_cell(workspace, name)] for name in names if pretrained_path(workspace, name) is None]


@contextlib.contextmanager
def _threads(slots: Sequence[str]) -> Iterator[None]:
    """The threads of one of so many processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(thread_share(threads, len(slots)))
    yield
    torch.set_num_threads(threads)


class _Timings:
    """The kinds of cohorts that were timed, in a file that later plans read."""

    def __init__(self, workspace: Workspace, say: Say) -> None:
        self._workspace, self._say = workspace, say
        self._file = workspace.paths.work / "timings.json"
        try:
            self._known = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            self._known = {}
        place = collect(workspace.device)
        self._place = [place["device"], place["torch"], torch.get_num_threads(), workspace.options.graphs]

    def of(self, cohort: Sequence[Cell]) -> Timed:
        """The timing of such a cohort, whatever its seed."""
        key = digest([self._place, _kind(cohort)])
        if key not in self._known:
            self._say(f"timing a few steps of {', '.join(map(str, cohort))}")
            with tempfile.TemporaryDirectory() as folder:
                job, share = _made_up(cohort, self._workspace, Path(folder))
                step_ms, image_s = step_and_evaluation(job)
            self._known[key] = [step_ms * share, image_s]
            with contextlib.suppress(OSError):  # they are then timed again next time
                write_atomic(self._file, json.dumps(self._known).encode())
        return Timed(*self._known[key])


def _kind(cohort: Sequence[Cell]) -> list[Any]:
    """What the time of a cohort's step depends on, as JSON."""
    first = cohort[0]
    teacher = next((cell.teacher for cell in cohort if cell.teacher), None)
    members = sorted([str(cell.identity()["student"]), cell.method, str(cell.params)] for cell in cohort)
    return [first.facts["views"], first.recipe.batch_size, first.recipe.precision, teacher, members]


def _made_up(cohort: Sequence[Cell], workspace: Workspace, folder: Path) -> tuple[Job, float]:
    """A dozen steps of the cohort on synthetic images; on a CPU of a part of large batches, and the whole's factor."""
    first, options = cohort[0], workspace.options
    given, whole = first.dataset, first.recipe.batch_size
    part = min(whole, PIXELS // given.size**2) if workspace.device == "cpu" else whole
    data = DataSpec(DATA, given.classes, given.size, given.mean, given.std)
    train = max((settled(options.graphs) + STEPS) * part, given.classes)
    toy_suite.write_images(folder / f"{DATA}.npz", given.classes, given.size, train, TEST)
    name = next((cell.teacher for cell in cohort if cell.teacher), None)
    suite = replace(workspace.suite, dataset=data)
    teacher = toy_suite.random_teacher(folder, suite, name, settled=True) if name else None
    split = load_split(data, "test", folder)
    cells = [
        replace(
            cell,
            dataset=data,
            split="test",
            split_id=split.id,
            recipe=replace(cell.recipe, epochs=1, batch_size=part),
            student_model=models.bare(cell.student_model),
            teacher_id=teacher.id if teacher and cell.teacher else None,
            teacher_cache=None,
        )
        for cell in cohort
    ]
    job = Job(tuple(cells), teacher, folder, folder / "work", workspace.device, options.plugins)
    return replace(job, graphs=options.graphs), whole / part
