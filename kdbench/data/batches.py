"""Feeds: the batches of an image set, from memory or streamed from disk.

B samples in a batch, N in the set, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kdbench.data.augment import Draws, draw, plain, render_bytes
from kdbench.data.dataset import ImageSet
from kdbench.suites.schema import View, drawn_as
from kdbench.utils.rng import generator


@dataclass(frozen=True, eq=False)
class Fed:
    """One batch of a training epoch, or the part of it whose n images were asked for.

    index: [B] int64 on the device, the samples' rows in the set.  target: [B] int64.  rows: [n] int64 on the CPU, the
    rows of the images.  images: view -> float32 [n, 3, H, W] in 0..1, channels_last.  draws: view -> the choices
    behind these images.
    """

    rows: Tensor
    index: Tensor
    target: Tensor
    images: Mapping[str, Tensor]
    draws: Mapping[str, Draws]


Part = Callable[[int], slice]  # number of samples in a batch -> the consecutive ones whose images are made


def whole(count: int) -> slice:
    """All samples of a batch: a `Part`."""
    return slice(0, count)


class Feed(Protocol):
    """What the training loop needs of a set. ``targets``: [N] int64 on the device."""

    targets: Tensor

    def __len__(self) -> int: ...

    def epoch(
        self,
        views: Mapping[str, View],
        where: Sequence[Any],
        batch_size: int,
        first_step: int = 0,
        part: Part = whole,
    ) -> Iterator[Fed]:
        """The batches of the epoch ``where`` (split id, seed, epoch) from step ``first_step`` on.

        part: of each batch, the samples whose images are made.
        """

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Index [B], target [B] and unaugmented images (as `Fed`'s) of the whole set in its order."""


def choices(
    views: Mapping[str, View], where: Sequence[Any], count: int, size: tuple[int, int]
) -> tuple[Tensor, dict[str, Draws]]:
    """All random choices of an epoch: the order [N] and each view's draws, each from its own random stream.

    A turned view has the stream of the view that is turned, hence the same draws.
    """
    draws = {
        name: draw(view, count, size, generator(f"view:{drawn_as(name)}", *where))
        for name, view in views.items()
    }
    return torch.randperm(count, generator=generator("order", *where)), draws


def rows_of(draws: Mapping[str, Draws], rows: Tensor | slice) -> dict[str, Draws]:
    """The draws of the samples ``rows``."""
    return {name: {key: values[rows] for key, values in draw.items()} for name, draw in draws.items()}


AHEAD = 1 << 25  # bytes of each view that are rendered at once on a GPU; rendering takes some ten times that


class Resident:
    """A feed whose images are all on the device.

    ahead: bytes of each view that are rendered at once; at least a batch. Default: many batches on a GPU, where a call
    is a launch whatever it computes; one on a CPU, where it stays in the caches.
    """

    def __init__(self, samples: ImageSet, device: torch.device, ahead: int | None = None) -> None:
        self.images, self.targets = samples.images.to(device), samples.targets.to(device)
        self._ahead = (AHEAD if device.type == "cuda" else 0) if ahead is None else ahead

    def __len__(self) -> int:
        return len(self.targets)

    def epoch(
        self,
        views: Mapping[str, View],
        where: Sequence[Any],
        batch_size: int,
        first_step: int = 0,
        part: Part = whole,
    ) -> Iterator[Fed]:
        """Yield the batches of an epoch, as `Feed.epoch` says."""
        height, width = self.images.shape[1:3]
        order, draws = choices(views, where, len(self), (height, width))
        ahead = max(1, self._ahead // (batch_size * height * width * 3))
        left = order.split(batch_size)[first_step:]
        for batches in (left[number : number + ahead] for number in range(0, len(left), ahead)):
            parts = [batch[part(len(batch))] for batch in batches]
            rows = torch.cat(parts)
            pixels = self.images[rows.to(self.targets.device, non_blocking=True)]
            drawn, start = rows_of(draws, rows), 0
            shown = {name: render_bytes(view, pixels, drawn[name]) for name, view in views.items()}
            for batch, own in zip(batches, parts, strict=True):
                at = slice(start, start := start + len(own))
                index = batch.to(self.targets.device, non_blocking=True)
                images = {name: plain(rendered[at]) for name, rendered in shown.items()}
                yield Fed(own, index, self.targets[index], images, rows_of(drawn, at))

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the whole set in its order, as `Feed.plain` says."""
        index = torch.arange(len(self), device=self.targets.device)
        parts = (each.split(batch_size) for each in (index, self.targets, self.images))
        for rows, target, images in zip(*parts, strict=True):
            yield rows, target, plain(images)
