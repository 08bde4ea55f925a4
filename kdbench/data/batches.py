"""Feeds: the batches of an image set, from memory or streamed from disk.

B samples in a batch, N in the set, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """One batch of a training epoch.

    rows: [B] int64 on the CPU, the samples' rows in the set.  index: the same on the device.  target: [B] int64.
    images: view -> float32 [B, 3, H, W] in 0..1, channels_last.  draws: view -> the choices behind these images.
    """

    rows: Tensor
    index: Tensor
    target: Tensor
    images: Mapping[str, Tensor]
    draws: Mapping[str, Draws]


class Feed(Protocol):
    """What the training loop needs of a set. ``targets``: [N] int64 on the device."""

    targets: Tensor

    def __len__(self) -> int: ...

    def epoch(
        self, views: Mapping[str, View], where: Sequence[Any], batch_size: int, first_step: int = 0
    ) -> Iterator[Fed]:
        """The batches of the epoch ``where`` (split id, seed, epoch) from step ``first_step`` on."""

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
        self, views: Mapping[str, View], where: Sequence[Any], batch_size: int, first_step: int = 0
    ) -> Iterator[Fed]:
        """Yield the batches of an epoch, as `Feed.epoch` says."""
        height, width = self.images.shape[1:3]
        order, draws = choices(views, where, len(self), (height, width))
        batches = max(1, self._ahead // (batch_size * height * width * 3))
        for block in order[first_step * batch_size :].split(batches * batch_size):
            index = block.to(self.targets.device, non_blocking=True)
            pixels, drawn = self.images[index], rows_of(draws, block)
            shown = {name: render_bytes(view, pixels, drawn[name]) for name, view in views.items()}
            yield from _batches(block, index, self.targets[index], shown, drawn, batch_size)

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the whole set in its order, as `Feed.plain` says."""
        index = torch.arange(len(self), device=self.targets.device)
        parts = (each.split(batch_size) for each in (index, self.targets, self.images))
        for rows, target, images in zip(*parts, strict=True):
            yield rows, target, plain(images)


def _batches(
    rows: Tensor,
    index: Tensor,
    target: Tensor,
    shown: Mapping[str, Tensor],
    drawn: Mapping[str, Draws],
    batch_size: int,
) -> Iterator[Fed]:
    """The batches of a block of samples whose views are rendered: uint8 [N, H, W, 3]."""
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        images = {name: plain(pixels[part]) for name, pixels in shown.items()}
        yield Fed(rows[part], index[part], target[part], images, rows_of(drawn, part))
