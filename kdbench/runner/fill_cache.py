"""Fill a teacher cache ahead: every outcome of every finite view of a selection's training images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.data.augment import Draws, render
from kdbench.data.dataset import ImageSet
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.models.wrapper import Network, to_device
from kdbench.plan.cells import Cell
from kdbench.plan.selection import Selection
from kdbench.runner.inputs import Inputs, find_inputs
from kdbench.runner.listeners import heard_by_all
from kdbench.runner.options import RunOptions
from kdbench.runner.stop import Stop
from kdbench.runner.workspace import open_workspace
from kdbench.teachers.logit_cache import CachedLogits, draws_of_outcome
from kdbench.train.callbacks import Progress
from kdbench.train.teacher_outputs import open_cache
from kdbench.utils.precision import autocast, tensor_cores


def fill_cache(selection: Selection, options: RunOptions, progress: Progress) -> int:
    """Compute what the cache of each teacher of a selection lacks; what is there is not computed again.

    Returns the exit code: 0, or 128 + signal when interrupted. Raises KdbenchError where a teacher is not there, the
    images stream from disk, or no view of the suite is finite.
    """
    stop = Stop()
    suite = selection.suite.name
    with stop.listening(progress.say), heard_by_all(progress, suite, options) as progress:
        inputs = find_inputs(open_workspace(selection, options, progress.say), progress.say)
        for line in _fill(inputs, progress, stop):
            progress.say(line)
    return stop.exit_code


def _fill(inputs: Inputs, progress: Progress, stop: Callable[[], bool]) -> Iterator[str]:
    """A line per table when it is full."""
    workspace = inputs.workspace
    folder, train, device = (
        workspace.options.teacher_cache,
        workspace.split.train,
        torch.device(workspace.device),
    )
    if folder is None:
        raise KdbenchError("teacher_cache must name the folder to fill")
    if not isinstance(train, ImageSet):
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
    for name, cell in cells.items():
        assert name is not None
        net = to_device(inputs.teachers[name].net(cell.dataset), device)
        cache = open_cache(folder, cell, len(train), device, progress.warn)
        for view, table in cache.tables.items():
            filler = _Filler(cell, net, train.images, cache, view)
            if not filler.fill(progress, stop):
                return
            yield f"{name} ({cell.teacher_id}), view {view}: {table.known_share():.1%} of {table.path}"


@dataclass(frozen=True)
class _Filler:
    """One table: the outcomes of one view. ``images``: uint8 [N, H, W, 3] of the training images."""

    cell: Cell
    net: Network
    images: Tensor
    cache: CachedLogits
    view: str

    def fill(self, progress: Progress, stop: Callable[[], bool]) -> bool:
        """Compute what the table lacks; False when that was stopped."""
        chunks = torch.arange(len(self.images)).split(self.cell.recipe.batch_size)
        outcomes = self.cache.tables[self.view].outcomes
        progress.plan([], f"logits of {self.cell.teacher}, view {self.view}")
        progress.begin([self.cell], outcomes, len(chunks), 0)
        for number in range(outcomes):
            for rows in chunks:
                if stop():
                    progress.end()
                    return False
                draws = draws_of_outcome(self.cell.views[self.view], number, len(rows))
                compute = functools.partial(self._logits, rows, draws)
                self.cache.logits(self.view, rows, draws, compute)
                progress.step(len(rows))
            progress.epoch(number + 1, {})
        progress.end()
        return True

    @torch.no_grad()
    def _logits(self, rows: Tensor, draws: Draws, places: Tensor) -> Tensor:
        """[P, C] of the images ``rows[places]`` as these draws show them."""
        precision, device = self.cell.recipe.precision, self.net.mean.device
        pixels = self.images[rows[places]].to(device)
        images = render(self.cell.views[self.view], pixels, {k: value[places] for k, value in draws.items()})
        with autocast(precision, device), tensor_cores(precision):
            return self.net(images, Needs()).logits
