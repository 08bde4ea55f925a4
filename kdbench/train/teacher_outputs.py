"""The teacher's outputs of one batch, computed once for all students of a cohort or read from the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdbench.data.augment import Draws
from kdbench.method import Outputs
from kdbench.models.wrapper import Network
from kdbench.plan.cells import Cell
from kdbench.suites.schema import View
from kdbench.teachers.device_logits import DeviceLogits, fits
from kdbench.teachers.logit_cache import CachedLogits, Table, count_outcomes
from kdbench.train.cell_trainer import Trainee
from kdbench.utils.needs import Needs, union
from kdbench.utils.precision import autocast
from kdbench.utils.timer import StepWatch

ByView = Mapping[str, Outputs]


class SharedTeacher:
    """A frozen network in the precision of a recipe. ``cache``: for the cells that say `teacher_cache`."""

    def __init__(
        self, net: Network, cell: Cell, device: torch.device, cache: CachedLogits | DeviceLogits | None
    ) -> None:
        self.net, self.precision, self.device, self.cache = net, cell.recipe.precision, device, cache
        self._watches: dict[tuple[str, str], StepWatch] = {}

    def computed_needs(self, trainees: Iterable[Trainee]) -> Needs:
        """What the network must compute in a step of ``trainees``: all that is in no table of the cache."""
        return union(self._without_tables(trainee) for trainee in trainees if trainee.needs.teacher)

    def _without_tables(self, trainee: Trainee) -> Needs:
        needs = trainee.needs.of("teacher")
        return dataclasses.replace(
            needs, views=tuple(v for v in needs.views if not self._is_cached(trainee, v))
        )

    def _is_cached(self, trainee: Trainee, view: str) -> bool:
        return trainee.cell.teacher_cache is not None and self.cache is not None and view in self.cache.tables

    @torch.no_grad()
    def compute(self, images: Tensor, needs: Needs) -> Outputs:
        """Run the network on one view: images [B, 3, H, W] in 0..1. All on the device, so that it can be recorded."""
        with autocast(self.precision, self.device):
            return self.net(images, needs)

    def compute_timed(self, images: Mapping[str, Tensor], needs: Needs) -> ByView:
        """`compute` of each view that ``needs`` names, on that view's clock."""
        outputs = {}
        for view in needs.views:
            with self.watch(view).running():
                outputs[view] = self.compute(images[view], needs)
        return outputs

    @torch.no_grad()
    def look_up(
        self,
        trainees: Sequence[Trainee],
        images: Mapping[str, Tensor],
        rows: Tensor,
        draws: Mapping[str, Draws],
        computed: ByView,
    ) -> ByView:
        """The logits of the views that ``trainees`` read from tables.

        What a table lacks is computed and added to it; ``computed``: outputs of the same batch that are there already.
        """
        views = {
            v: None for t in trainees for v in t.needs.views if t.needs.teacher and self._is_cached(t, v)
        }
        outputs = {}
        for view in views:
            with self.watch(view, "cached").running():
                outputs[view] = self._look_up_view(view, images[view], rows, draws[view], computed.get(view))
        return outputs

    def _look_up_view(
        self, view: str, images: Tensor, rows: Tensor, draws: Draws, ready: Outputs | None
    ) -> Outputs:
        assert self.cache is not None

        def compute(places: Tensor) -> Tensor:
            places = places.to(self.device)
            return ready.logits[places] if ready else self.compute(images[places], Needs()).logits

        logits = self.cache.logits(view, rows, draws, compute)
        return Outputs(logits.to(self.device, non_blocking=True))

    def shown(self, trainee: Trainee, computed: ByView, cached: ByView) -> ByView:
        """What ``trainee`` reads: its own views and needs alone; logits are its own copy, the large maps are shared."""
        if not trainee.needs.teacher:
            return {}
        return {
            view: Outputs(cached[view].logits.clone())
            if self._is_cached(trainee, view)
            else _restricted(computed[view], trainee.needs)
            for view in trainee.needs.views
        }

    def seconds(self, views: Iterable[str]) -> float:
        """Seconds that the outputs of ``views`` have taken so far, for the whole cohort."""
        views = set(views)
        return sum(watch.seconds for (_, view), watch in self._watches.items() if view in views)

    def settle(self) -> None:
        """At the end of an epoch."""
        if self.cache is not None:
            self.cache.settle()
        for watch in self._watches.values():
            watch.settle()

    def watch(self, view: str, kind: str = "computed") -> StepWatch:
        """The clock of a view's outputs."""
        return self._watches.setdefault((kind, view), StepWatch(self.device))


def _restricted(outputs: Outputs, needs: Needs) -> Outputs:
    """Those of ``outputs`` that ``needs`` declares."""
    needs = needs.of("teacher")
    return Outputs(
        outputs.logits.clone(),
        embedding=outputs.embedding.clone() if needs.embedding and outputs.embedding is not None else None,
        features=outputs.features if needs.features else None,
        stages=outputs.stages if needs.stages else None,
        preact=outputs.preact if needs.preact else None,
        classify=outputs.classify if needs.classifier else None,
    )


def versions(shown: ByView) -> list[int]:
    """Of the maps that all cells share: how often each was written into."""
    maps = [each for outputs in shown.values() for each in (outputs.features, outputs.stages, outputs.preact)]
    tensors = [t for each in maps if each is not None for t in (each if isinstance(each, tuple) else (each,))]
    return [tensor._version for tensor in tensors]


def open_shared_cache(
    folder: Path, cell: Cell, count: int, device: torch.device, warn: Callable[[str], None]
) -> CachedLogits | DeviceLogits:
    """As `open_cache`, in the memory of a GPU where it fits."""
    cache = open_cache(folder, cell, count, device, warn)
    return DeviceLogits(cache, device) if device.type == "cuda" and fits(cache.tables, device) else cache


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
