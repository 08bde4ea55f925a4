"""A job that fills a teacher's cache: every outcome of every finite view of the training images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.data.augment import Draws, render
from kdbench.data.dataset import ImageSet
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.models.wrapper import Network, to_device
from kdbench.plan.cells import Cell
from kdbench.teachers.logit_cache import CachedLogits, draws_of_outcome
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job, Result, load_images
from kdbench.train.teacher_outputs import open_cache
from kdbench.utils.precision import autocast, tensor_cores
from kdbench.utils.status import Status


def fill_cache(job: Job, progress: Progress, stop: Callable[[], bool]) -> tuple[list[Result], bool]:
    """Compute what the tables of the job's one cell lack; what is there is not computed again.

    Returns the result of the cell and whether ``stop`` ended it early, as `train_cohort` does. Raises KdbenchError
    where the images stream from disk.
    """
    (cell,) = job.cells
    assert job.teacher is not None
    assert job.teacher_cache is not None
    images, device = load_images(job).train, torch.device(job.device)
    if not isinstance(images, ImageSet):
        raise KdbenchError(f"the images of {cell.dataset.name} stream from disk: they have no teacher cache")
    net = to_device(job.teacher.net(cell.dataset), device)
    cache = open_cache(job.teacher_cache, cell, len(images), device, progress.warn)
    for view, table in cache.tables.items():
        if not _Filler(cell, net, images.images, cache, view).fill(progress, stop):
            return [Result(cell, {"status": Status.INTERRUPTED})], True
        share = table.known_share()
        progress.say(f"{cell.teacher} ({cell.teacher_id}), view {view}: {share:.1%} of {table.path}")
    return [Result(cell, {"status": Status.OK})], False


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
