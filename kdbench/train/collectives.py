"""Messages between the ranks of one cohort; a rank that has gone is one kind of error, whatever the backend raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class RankLost(Exception):
    """Another rank has ended, so that this one cannot go on."""


@contextlib.contextmanager
def _noticed() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the base of what gloo and NCCL raise
        raise RankLost(str(error)) from error


def add_up(tensor: Tensor) -> None:
    """Replace ``tensor`` by its sum over the ranks."""
    with _noticed():
        dist.all_reduce(tensor)


def maximum(tensor: Tensor) -> None:
    """Replace ``tensor`` by its elementwise maximum over the ranks."""
    with _noticed():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)


def each(tensor: Tensor) -> list[Tensor]:
    """The tensor of every rank; all have one shape."""
    with _noticed():
        tensors = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(tensors, tensor)
        return tensors


def of_first(value: Any) -> Any:
    """The first rank's value, which must be picklable."""
    values = [value]
    with _noticed():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def of_all(value: Any) -> list[Any]:
    """Every rank's value, which must be picklable."""
    values = [None] * dist.get_world_size()
    with _noticed():
        dist.all_gather_object(values, value)
    return values
