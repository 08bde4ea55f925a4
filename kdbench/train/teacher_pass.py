"""The pass over the training images that `Method.prepare` reads."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kdbench.data.batches import Feed
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Needs, Views
from kdbench.models.wrapper import Network


class TeacherPass:
    """The unaugmented training images with the teacher's outputs, batch by batch in their order.

    It can be iterated several times. teacher: None where the cohort has none; iterating then raises KdbenchError.
    """

    def __init__(
        self, train: Feed, batch_size: int, teacher: Network | None, needs: Needs, device: torch.device
    ) -> None:
        self.train, self.batch_size, self.teacher, self.device = train, batch_size, teacher, device
        self.needs = needs.of("teacher")

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        if self.teacher is None:
            raise KdbenchError("prepare reads teacher batches, but `needs` declares teacher=False")
        seen = 0
        for index, target, images in self.train.plain(self.batch_size):
            seen += len(index)
            batch = Batch(
                target=target,
                epoch=0.0,
                last=seen == len(self.train),
                progress=torch.tensor(0.0, device=self.device),
                generator=torch.Generator(self.device),
                sample_index=index if self.needs.index else None,
            )
            yield batch, Views({self.needs.views[0]: self.teacher(images, self.needs)}, self.needs)
