"""Filling a teacher cache ahead: every outcome of every finite view of a session's train set."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kdbench.data.augment import render
from kdbench.data.dataset import ImageSet
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.models.wrapper import to_device
from kdbench.plan.cells import Cell
from kdbench.runner.session import Session
from kdbench.teachers.logit_cache import CachedLogits, draws_of_outcome
from kdbench.train.callbacks import Progress
from kdbench.train.teacher_outputs import open_cache
from kdbench.utils.precision import autocast, tensor_cores


def fill(session: Session, progress: Progress) -> Iterator[str]:
    """Compute what the cache of each teacher of the session lacks; a line a table when it is full.

    What is there is not computed again, so it may be stopped at any time. Raises KdbenchError where a teacher is not
    there, the images stream from disk, or no view of the suite is finite.
    """
    assert session.teacher_cache is not None
    train, device = session.split.train, torch.device(session.device)
    if not isinstance(train, ImageSet):
        raise KdbenchError(
            f"the images of {session.suite.dataset.name} stream from disk: they have no teacher cache"
        )
    if absent := [name for name in session.needed_teachers() if name not in session.teachers]:
        raise KdbenchError(f"the teacher {absent[0]} is not there yet; type `kdbench teachers train` first")
    cells = {cell.teacher: cell for cell in session.cells() if cell.teacher_cache}
    if not cells:
        raise KdbenchError(f"no view of {session.suite.name} is a crop and flip alone: nothing can be cached")
    for name, cell in cells.items():
        cache = open_cache(session.teacher_cache, cell, len(train), device, progress.warn)
        for view, table in cache.tables.items():
            if not _fill_view(session, cell, cache, view, progress):
                return
            yield f"{name} ({cell.teacher_id}), view {view}: {table.known_share():.1%} of {table.path}"


def _fill_view(session: Session, cell: Cell, cache: CachedLogits, view: str, progress: Progress) -> bool:
    """One table; False when that was stopped."""
    assert cell.teacher is not None
    images, device = session.split.train.images, torch.device(session.device)
    net = to_device(session.teachers[cell.teacher].net(cell.dataset), device)
    chunks = torch.arange(len(images)).split(cell.recipe.batch_size)
    outcomes = cache.tables[view].outcomes
    progress.begin(1, outcomes, len(chunks), 0)
    for number in range(outcomes):
        for rows in chunks:
            if session.stop():
                progress.end()
                return False
            draws = draws_of_outcome(cell.views[view], number, len(rows))

            @torch.no_grad()
            def compute(places: Tensor, rows: Tensor = rows, draws: dict[str, Tensor] = draws) -> Tensor:
                pixels = images[rows[places]].to(device)
                shown = render(cell.views[view], pixels, {key: value[places] for key, value in draws.items()})
                with autocast(cell.recipe.precision, device), tensor_cores(cell.recipe.precision):
                    return net(shown, Needs()).logits

            cache.logits(view, rows, draws, compute)
            progress.step(len(rows))
        progress.epoch(number + 1, {})
    progress.end()
    return True
