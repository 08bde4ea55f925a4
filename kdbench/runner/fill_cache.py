"""Fill the teacher cache of a selection ahead: a job per teacher, by the executor of the options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kdbench.data.dataset import ImageSet
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.plan.selection import Selection
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.listeners import heard_by_all
from kdbench.runner.options import RunOptions
from kdbench.runner.stop import Stop
from kdbench.runner.training import side_by_side
from kdbench.runner.workspace import open_workspace
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job
from kdbench.utils.status import Status


def fill_cache(selection: Selection, options: RunOptions, progress: Progress) -> int:
    """Compute what the cache of each teacher of a selection lacks; what is there is not computed again.

    Returns the exit code: 0, 3 where a teacher's failed (``progress`` says why), or 128 + signal when interrupted.
    Raises KdbenchError where a teacher is not there, the images stream from disk, no view of the suite is finite, or
    the executor is Slurm's.
    """
    if options.executor == "slurm":
        raise KdbenchError(
            "the executor slurm only trains; submit `kdbench teachers cache` itself as a job, by sbatch --wrap"
        )
    stop = Stop()
    suite = selection.suite.name
    with stop.listening(progress.say), heard_by_all(progress, suite, options) as progress:
        inputs = find_inputs(open_workspace(selection, options, progress.say), progress.say)
        failed = _fill(inputs, _cells(inputs), progress, stop)
    return stop.exit_code or 3 * failed


def _cells(inputs: Inputs) -> list[Cell]:
    """One that reads the cache per teacher."""
    workspace = inputs.workspace
    if workspace.options.teacher_cache is None:
        raise KdbenchError("teacher_cache must name the folder to fill")
    if not isinstance(workspace.split.train, ImageSet):
        raise KdbenchError(
            f"the images of {workspace.suite.dataset.name} stream from disk: they have no teacher cache"
        )
    if absent := [name for name in workspace.selection.teachers() if name not in inputs.teachers]:
        raise KdbenchError(f"the teacher {absent[0]} is not there yet; type `kdbench teachers train` first")
    cells = {cell.teacher: cell for cell in inputs.cells() if cell.teacher_cache}
    if not cells:
        raise KdbenchError(
            f"no view of {workspace.suite.name} is a crop and flip alone: nothing can be cached"
        )
    return list(cells.values())


def _fill(inputs: Inputs, cells: list[Cell], progress: Progress, stop: Stop) -> bool:
    """Whether a teacher's could not be filled. A teacher's that another process fills is left to it."""
    workspace, failed = inputs.workspace, False
    cohorts, locks = [[cell] for cell in cells], workspace.paths.locks / "teacher-cache"

    def job(cells: Sequence[Cell]) -> Job:
        return dataclasses.replace(inputs.job(cells), fills_cache=True)

    progress.plan(cohorts, f"logits of {', '.join(str(cell.teacher) for cell in cells)}")
    with side_by_side(cohorts, job, lambda cells: cells, workspace, progress, stop, locks) as (_, finished):
        for done in finished:
            for result in done.results:
                if result.row["status"] not in (Status.OK, Status.INTERRUPTED):
                    failed = True
                    progress.warn(
                        f"the logits of {result.cell.teacher} are not complete: {result.row['error']}"
                    )
    return failed
