"""The passes over the training images that `Method.prepare` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.data.batches import Feed
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Needs, Views
from kdbench.models.wrapper import Network
from kdbench.plan.cells import Cell


@dataclass(frozen=True, eq=False)
class TeacherPass:
    """`kdbench.method.TeacherBatches` of the images ``train``, in the views and the batch size of ``cell``.

    teacher: None where the cohort has none; reading then raises KdbenchError. generator: the cell's own.
    """

    cell: Cell
    train: Feed
    teacher: Network | None
    needs: Needs
    device: torch.device
    generator: torch.Generator

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        seen = 0
        for index, target, images in self.train.plain(self.cell.recipe.batch_size):
            seen += len(index)
            yield self._shown(index, target, {self.needs.views[0]: images}, seen)

    def epoch(self, number: int) -> Iterator[tuple[Batch, Views]]:
        """Yield all declared views in random order, as `kdbench.method.TeacherBatches.epoch` says."""
        views = {name: self.cell.view(name) for name in self.needs.views}
        where = (self.cell.split_id, self.cell.seed, f"prepare {number}")
        seen = 0
        for fed in self.train.epoch(views, where, self.cell.recipe.batch_size):
            seen += len(fed.index)
            yield self._shown(fed.index, fed.target, fed.images, seen)

    def _shown(
        self, index: Tensor, target: Tensor, images: Mapping[str, Tensor], seen: int
    ) -> tuple[Batch, Views]:
        """The batch ``index`` [B], after which ``seen`` images have been shown."""
        if self.teacher is None:
            raise KdbenchError("prepare reads teacher batches, but `needs` declares teacher=False")
        needs = self.needs.of("teacher")
        batch = Batch(
            target=target,
            epoch=0.0,
            last=seen == len(self.train),
            progress=torch.tensor(0.0, device=self.device),
            generator=self.generator,
            sample_index=index if needs.index else None,
        )
        with torch.no_grad():
            outputs = {view: self.teacher(shown, needs) for view, shown in images.items()}
        return batch, Views(outputs, needs)
