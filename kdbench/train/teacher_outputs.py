"""The teacher's outputs of one batch, computed once for all students of a cohort or read from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from kdbench.data.batches import Fed
from kdbench.method import Outputs
from kdbench.models.wrapper import Network
from kdbench.plan.cells import Cell
from kdbench.suites.schema import View
from kdbench.teachers.logit_cache import CachedLogits, Table, count_outcomes
from kdbench.train.cell_trainer import Trainee
from kdbench.train.cuda_graphs import RecordedForward
from kdbench.utils.needs import Needs, union
from kdbench.utils.precision import autocast
from kdbench.utils.timer import Stopwatch

ByView = dict[str, Outputs]


class SharedTeacher:
    """A frozen network in the precision of a recipe. ``cache``: for the cells that say `teacher_cache`."""

    def __init__(
        self, net: Network, cell: Cell, device: torch.device, cache: CachedLogits | None, graphs: bool = False
    ) -> None:
        self.net, self.precision, self.device, self.cache = net, cell.recipe.precision, device, cache
        self._run = RecordedForward(self._eager) if graphs else self._eager
        self._watches: dict[str, Stopwatch] = {}

    @torch.no_grad()
    def outputs(self, fed: Fed, trainees: list[Trainee]) -> Callable[[Trainee], ByView]:
        """Run the teacher once per view for all ``trainees``; returns a function from a trainee to its outputs."""
        trainees = [trainee for trainee in trainees if trainee.needs.teacher]
        plain = self._forward(fed, union(_needed(t) for t in trainees if not t.cell.teacher_cache))
        cached = self._cached(fed, union(_needed(t) for t in trainees if t.cell.teacher_cache), plain)
        return lambda trainee: cached if trainee.cell.teacher_cache else plain

    def seconds(self, views: Iterable[str]) -> float:
        """Seconds that the outputs of ``views`` have taken so far, for the whole cohort."""
        return sum(self._watches[view].seconds for view in views if view in self._watches)

    def _watch(self, view: str) -> AbstractContextManager[None]:
        return self._watches.setdefault(view, Stopwatch(self.device)).running()

    def _forward(self, fed: Fed, needs: Needs) -> ByView:
        outputs: ByView = {}
        for view in needs.views:
            with self._watch(view):
                outputs[view] = self._run(fed.images[view], needs)
        return outputs

    def _eager(self, images: Tensor, needs: Needs) -> Outputs:
        with autocast(self.precision, self.device):
            return self.net(images, needs)

    def _cached(self, fed: Fed, needs: Needs, plain: ByView) -> ByView:
        outputs: ByView = {}
        for view in needs.views:
            with self._watch(view):
                outputs[view] = self._cached_view(fed, view, needs, plain.get(view))
        return outputs

    def _cached_view(self, fed: Fed, view: str, needs: Needs, ready: Outputs | None) -> Outputs:
        images = fed.images[view]
        if self.cache is None or view not in self.cache.tables:  # the strong view of a two-view method
            return ready or self._run(images, needs)

        def compute(places: Tensor) -> Tensor:
            places = places.to(self.device)
            return ready.logits[places] if ready else self._eager(images[places], Needs()).logits

        logits = self.cache.logits(view, fed.rows, fed.draws[view], compute)
        return Outputs(logits.to(self.device, non_blocking=True))


def _needed(trainee: Trainee) -> Needs:
    return trainee.needs.of("teacher")


def open_cache(
    folder: Path, cell: Cell, count: int, device: torch.device, warn: Callable[[str], None]
) -> CachedLogits:
    """Open the tables of ``cell``'s teacher on its train set of ``count`` images, one for each finite view."""
    views = {name: view for name, view in cell.views.items() if count_outcomes(view)}
    size = cell.dataset.classes
    tables = {n: Table(folder, table_key(cell, v, device), count, v, size) for n, v in views.items()}
    return CachedLogits(tables, views, warn)


def table_key(cell: Cell, view: View, device: torch.device) -> list:
    """All that a teacher's logits depend on."""
    normalise = [cell.dataset.mean, cell.dataset.std]
    return [cell.teacher_id, cell.split_id, view.identity(), normalise, cell.recipe.precision, device.type]
