"""`run` trains what is missing of a selection; it is the Python form of `kdbench run`."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.plan.selection import Methods, Overrides, Pairs, Seeds, Selection, Sets, change_suite, select
from kdbench.plan.settings import read
from kdbench.results import store
from kdbench.results.attempts import Attempts
from kdbench.runner import options as run_options
from kdbench.runner.describe import announce_missing
from kdbench.runner.executors import check_not_submitted
from kdbench.runner.heartbeat import beating
from kdbench.runner.inputs import Inputs, complete_inputs, find_inputs
from kdbench.runner.listeners import heard_by_all
from kdbench.runner.missing import Missing, done_ids, find_missing, records_of, untried
from kdbench.runner.options import RunOptions
from kdbench.runner.outcome import Outcome
from kdbench.runner.paths import Paths
from kdbench.runner.progress import listener
from kdbench.runner.record import record
from kdbench.runner.stop import Stop
from kdbench.runner.training import side_by_side
from kdbench.runner.trial import try_methods
from kdbench.runner.workspace import Say, open_workspace
from kdbench.suites import Suite
from kdbench.train.callbacks import Progress
from kdbench.utils import environment, locks

# arguments that change the suite
CHANGES = ("epochs", "lr", "clip", "per_class", "precision")


def run(
    suite: str | Path | Suite = "digits",
    methods: Methods | None = None,
    *,
    pairs: Pairs | None = None,
    seeds: Seeds | None = None,
    sets: Sets = (),
    params: str | Path | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    clip: float | None = None,
    per_class: int | None = None,
    precision: str | None = None,
    split: str = "test",
    results: str | Path = "results",
    data_dir: str | Path | None = None,
    plugins: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    teacher_split: bool = False,
    teacher_cache: str | Path | None = None,
    device: str = "auto",
    graphs: bool | str = "",
    workers: int | None = None,
    executor: str | None = None,
    jobs: int | str = 1,
    ranks: int | str = 1,
    slurm: str = "",
    address: str | None = None,
    gpus_per_job: float | None = None,
    cpus_per_job: int | None = None,
    memory_per_job: float | None = None,
    max_hours: float | None = None,
    force: bool = False,
    track: str = "",
    progress: Progress | None = None,
) -> Outcome:
    """Train every missing cell of methods x pairs x seeds; finished ones are skipped, interrupted ones continue.

    What is trained (None: as the suite says):
        suite: a name, a .toml file, or a `kdbench.Suite`.
        methods: names, globs or ``all`` (a list, or a text with commas); classes of methods; objects of them, with
            their own hyperparameters.
        pairs: ``teacher:student``, or ``teacher->student`` where a name holds a colon; ``(teacher, student)``;
            `kdbench.Pair` objects; one or several.
        seeds: an int, ints, or a text like ``0-2``.
        sets: ``method.parameter=value[,value]``, or a dict of ``method.parameter`` and its values; several values make
            several cells.
        params: a file of settings as `kdbench tune` writes it; they train beside the suite's.
        epochs: the schedule is rescaled.
        lr: learning rate, in place of those of pairs too; teachers keep theirs.
        clip: largest norm of the gradient; 0: none.
        per_class: training and test images of each class.
        precision: fp32, bf16 or tf32.
        split: the images that are evaluated, ``test`` or ``holdout``.

    Where and how (no part of a cell's id):
        results: folder of rows, curves and checkpoints.
        data_dir: folder of the images; None: KDBENCH_DATA.
        plugins: a folder of method files, or one file.
        teacher_weights: folder of <teacher>.pth or .safetensors.
        teacher_split: train teachers here on the split's training images, whatever other weights are at hand.
        teacher_cache: folder that keeps teachers' logits for later runs.
        device: auto, cpu or cuda:0; several by commas, or all: a cohort trains on each.
        graphs: record the step of a cohort as one CUDA graph (True); ``sequential``: the step of each cell as one.
        workers: processes that decode streamed images.
        executor: serial (in this process), processes, slurm or ray; None: as jobs and device ask.
        jobs: cohorts that train side by side, each in a process; auto: one per GPU, on a CPU one per thread.
        ranks: processes that train each cohort together, with a GPU each, and give the same numbers up to rounding;
            auto: one per GPU where it trains.
        slurm: what each job of Slurm gets, ``key=value,key=value``.
        address: of a Ray cluster: auto (None: auto), ``HOST:PORT``, or local: one of its own on this machine.
        gpus_per_job: what each job of Ray gets, at most 1; None: 1 where the cluster has GPUs.
        cpus_per_job: what each job of Ray gets, and its threads; None: 1.
        memory_per_job: what each job of Ray gets, in GiB; None: nothing is reserved.
        max_hours: stop after this time and save the state.
        force: train finished cells again; rows are added, never replaced.
        track: log every epoch to tensorboard, wandb or mlflow as well; several by commas.
        progress: what shows it; None: bars in a terminal or notebook, else lines on stderr.

    Raises KdbenchError for bad input.

    >>> outcome = run(pairs="digits_teacher:digits_student", seeds=0, epochs=2)  # doctest: +SKIP
    >>> outcome.rows[["method", "top1"]]  # doctest: +SKIP
    """
    arguments = dict(locals())
    progress = listener(arguments.pop("progress"))
    return execute(*resolve(**arguments), progress)


def resolve(
    suite: str | Path | Suite = "digits",
    methods: Methods | None = None,
    variants: Sequence[Overrides] = (),
    params: str | Path | None = None,
    **arguments: Any,
) -> tuple[Selection, RunOptions]:
    """What to train and how, from the arguments of `run` and `plan.selection.select`; nothing is opened."""
    how = {name: arguments.pop(name) for name in run_options.NAMES & arguments.keys()}
    changes = {name: arguments.pop(name, None) for name in CHANGES}
    options = RunOptions(**how)
    registry.load(options.plugins)
    changed = change_suite(load_suite(suite), **changes)
    settings = read(params) if params is not None else ()
    selection = select(changed, methods, variants=variants, settings=settings, **arguments)
    if options.elsewhere:
        _check_portable(selection)
    return selection, options


def load_suite(suite: str | Path | Suite) -> Suite:
    """A suite by name or file, or one that was built in Python, which is checked as strictly."""
    if isinstance(suite, Suite):
        return suites.validated(suite)
    if not isinstance(suite, str | os.PathLike):
        raise KdbenchError(f"suite takes a name, a .toml file or a kdbench.Suite, got {suite!r}")
    return suites.load(os.fspath(suite))


def _check_portable(selection: Selection) -> None:
    for name in selection.methods:
        if not registry.portable(name):
            raise KdbenchError(
                f"other processes cannot load the method {name}, whose module is no plug-in; use jobs=1 and one "
                "device, or name its file with plugins="
            )


def execute(selection: Selection, options: RunOptions, progress: Progress) -> Outcome:
    """Train every missing cell of a selection and record it under ``options.results``."""
    stop = Stop(options.max_hours)
    suite = selection.suite.name
    with stop.listening(progress.say), heard_by_all(progress, suite, options) as progress:
        workspace = open_workspace(selection, options, progress.say)
        store.check_writable(workspace.paths.rows)
        store.check_header(workspace.paths.curves, store.CURVE_COLUMNS)
        located = find_inputs(workspace, progress.say)
        planned = find_missing(store.read(workspace.paths.rows), located.cells(), options.force)
        try_methods(workspace, planned.cells)
        inputs = complete_inputs(located, progress, stop)
        cells = inputs.cells()
        if inputs.complete:
            missing = _announced(inputs, cells, progress.say)
            train_and_record(missing, inputs, progress, stop)
    return _conclude(inputs, cells, stop)


def _announced(inputs: Inputs, cells: Sequence[Cell], say: Say) -> Missing:
    """What is to be trained; ``say`` gets what the user should know before."""
    workspace = inputs.workspace
    attempts = store.read(workspace.paths.rows)
    missing = find_missing(attempts, cells, workspace.options.force)
    announce_missing(missing, workspace.selection, cells, attempts, say)
    return missing


def train_and_record(missing: Missing, inputs: Inputs, progress: Progress, stop: Stop) -> None:
    """Train ``missing`` by the executor of the options, and record each result under the workspace's paths."""
    workspace, paths = inputs.workspace, inputs.workspace.paths
    cohorts = form_cohorts(missing.cells, {}, len(workspace.devices))
    progress.plan(cohorts)
    if missing.cells:
        locks.check(paths.locks)
    check_not_submitted(workspace.options, paths.slurm, missing.cells)
    here = environment.collect(workspace.device)
    attempts = Attempts(paths.rows)
    left = functools.partial(untried, missing, attempts)
    with side_by_side(cohorts, inputs.job, left, workspace, progress, stop) as (executor, finished):
        how = {"executor": executor.name, "jobs": executor.jobs}
        for done in finished:
            record(inputs, done.results, {**here, **done.source, **how}, attempts, progress)


def _conclude(inputs: Inputs, cells: Sequence[Cell], stop: Stop) -> Outcome:
    paths = inputs.workspace.paths
    rows = records_of(store.read(paths.rows), cells)
    left = {cell.id for cell in cells} - done_ids(rows)
    return Outcome(
        suite=inputs.workspace.suite.name,
        cells=cells,
        rows=rows,
        paths=paths,
        elsewhere=len(_trained_elsewhere(paths, left)),
        signal=stop.signal,
        out_of_time=stop.out_of_time,
    )


def _trained_elsewhere(paths: Paths, ids: Collection[str]) -> set[str]:
    """Those of the cells that another process trains now, for the same file of rows.

    A note alone proves nothing: its process may have died on another machine.
    """
    others = {(beat.pid, beat.host) for beat in beating(paths.running) if beat.suite != paths.suite}
    noted = {
        name
        for name, note in locks.running(paths.locks).items()
        if name in ids and (note["pid"], note["host"]) not in others
    }
    with locks.held(paths.locks, noted) as free:
        return noted - set(free)
