"""The processes (ranks) that train one cohort together, each on its part of every batch.

Whatever is computed on parts adds up to what one process computes on the whole, up to rounding: each rank counts its
loss by its share, and gradients are summed. A loss whose samples depend on each other is computed by every rank on the
outputs of all; BatchNorm in training takes the statistics of all parts. A batch too small to share is computed whole by
every rank.

R ranks, B samples in a batch, n of them in one rank's part.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kdbench.errors import KdbenchError
from kdbench.method import Batch, Method, Outputs, is_separable
from kdbench.train import collectives
from kdbench.train.batch_norm import BatchNormBy
from kdbench.train.sync_batch_norm import normalise_together

T = TypeVar("T")
ByView = Mapping[str, Outputs]
PATIENCE = datetime.timedelta(
    days=1
)  # the first rank may evaluate for hours; dead ranks are noticed by their starter


class CellsFailed(Exception):
    """Cells that raised on one rank in a step, while others may wait for it. ``reasons``: by cell id."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(dict(reasons))
        self.reasons = dict(reasons)


@dataclass(frozen=True)
class Ranks:
    """One of ``world`` ranks; with one, everything below leaves what it is given as it is."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank evaluates, saves and reports."""
        return self.rank == 0

    def small(self, count: int) -> bool:
        """Whether a batch of ``count`` samples is computed whole by every rank."""
        return count < 2 * self.world

    def own(self, count: int) -> slice:
        """The samples of a batch that are this rank's alone."""
        return bounds(count, self.world)[self.rank]

    def part(self, count: int) -> slice:
        """The samples of a batch that this rank computes."""
        return slice(0, count) if self.small(count) else self.own(count)

    def batch_norm(self, count: int) -> AbstractContextManager:
        """Within it, BatchNorm on a part of a batch of ``count`` samples takes the statistics of all parts."""
        together = self.world > 1 and not self.small(count)
        return BatchNormBy(normalise_together) if together else contextlib.nullcontext()

    @torch.no_grad()
    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in place: one message per dtype."""
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors if self.world > 1 else ():
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for alike in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            collectives.add_up(flat)
            parts = flat.split([tensor.numel() for tensor in alike])
            for tensor, part in zip(alike, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensor: Tensor, count: int) -> Tensor:
        """The parts [n, ...] of all ranks as one tensor [count, ...], in the order of the batch, differentiable.

        Every rank must compute the same of it, as 1 / R of a sum over the ranks: the gradient of a part is R times that
        which this rank has of it.
        """
        return _Gather.apply(tensor, bounds(count, self.world), self.rank)

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Whether each flag is set on any rank."""
        if self.world == 1:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.int32)
        collectives.maximum(numbers)
        return [bool(number) for number in numbers.tolist()]

    def of_first(self, value: T) -> T:
        """The first rank's value, which must be picklable."""
        return value if self.world == 1 else collectives.of_first(value)

    def of_all(self, value: T) -> list[T]:
        """Each rank's value, which must be picklable."""
        return [value] if self.world == 1 else collectives.of_all(value)

    def own_of(self, tensor: Tensor, count: int) -> Tensor:
        """Of outputs [n, ...] of the part that this rank computes, those that are this rank's alone."""
        return tensor[self.own(count)] if len(tensor) == count else tensor

    def in_step(self, items: Iterable[T], stop: Callable[[], bool]) -> Iterator[tuple[T, bool]]:
        """Yield the items, and whether ``stop`` holds on any rank.

        Where one rank's items end by KdbenchError, that is raised on all.
        """
        iterator = iter(items)
        while True:
            item, reason = None, None
            try:
                item = next(iterator, None)
            except KdbenchError as error:
                reason = error
            failed, stopping = self.any_of([reason is not None, item is not None and stop()])
            if failed:
                raise KdbenchError(next(filter(None, self.of_all(str(reason or "")))))
            if item is None:
                return
            yield item, stopping


@dataclass(frozen=True, eq=False)
class Shared:
    """What one rank calls a loss with, and its ``share`` of it; None: the loss counts as it is.

    batch_norm: what the call runs within.
    """

    batch: Batch
    student: ByView
    teacher: ByView
    share: Tensor | None
    batch_norm: AbstractContextManager


def shared(ranks: Ranks, method: Method, batch: Batch, student: ByView, teacher: ByView) -> Shared:
    """How a rank takes its share of the loss of ``batch`` [B], from the outputs [n] of the part that it computes."""
    count = len(batch.target)
    if ranks.world == 1:
        return Shared(batch, student, teacher, None, contextlib.nullcontext())
    part = ranks.part(count)
    if is_separable(method) and count // ranks.world >= method.min_batch and not ranks.small(count):
        index = batch.sample_index
        own = replace(batch, target=batch.target[part], sample_index=None if index is None else index[part])
        share = (part.stop - part.start) / count
        return Shared(own, student, teacher, batch.progress.new_tensor(share), ranks.batch_norm(count))
    if not ranks.small(count):
        student, teacher = (_gathered(ranks, outputs, count) for outputs in (student, teacher))
    share = batch.progress.new_tensor(1 / ranks.world)
    return Shared(batch, student, teacher, share, contextlib.nullcontext())


def _gathered(ranks: Ranks, outputs: ByView, count: int) -> ByView:
    return {view: _of_all(ranks, output, count) for view, output in outputs.items()}


def _of_all(ranks: Ranks, output: Outputs, count: int) -> Outputs:
    """The outputs of the whole batch from those of this rank's part."""
    whole: dict[str, Any] = {}
    for field in fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Tensor):
            whole[field.name] = ranks.gather(value, count)
        elif isinstance(value, tuple):
            whole[field.name] = tuple(ranks.gather(each, count) for each in value)
    return replace(output, **whole)


def bounds(count: int, world: int) -> list[slice]:
    """The samples of each rank: consecutive, and equally many, or one more for the first ranks.

    >>> bounds(5, 2)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    size, more = divmod(count, world)
    ends = [rank * size + min(rank, more) for rank in range(world + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


@contextlib.contextmanager
def joined(rank: int, world: int, device: torch.device, meeting: Path) -> Iterator[Ranks]:
    """Join the other ranks, which all name the same new file ``meeting``; NCCL between GPUs, gloo between CPUs."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, f"file://{meeting}", timeout=PATIENCE, world_size=world, rank=rank)
    try:
        yield Ranks(rank, world)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Sequence[slice], rank: int) -> Tensor:
        ctx.own, ctx.world = places[rank], len(places)
        sizes = [place.stop - place.start for place in places]
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])  # ranks can only exchange equal shapes
        padded[: len(tensor)] = tensor
        parts = zip(collectives.each(padded), sizes, strict=True)
        return torch.cat([part[:size] for part, size in parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.world * gradient[ctx.own], None, None
