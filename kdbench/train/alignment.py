"""Gradient alignment, after DHKD (Yang et al., KDD 2025): no term's gradient may work against that of one term."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

Slopes = Sequence[Tensor | None]  # a gradient: a tensor per parameter, None where it does not reach one


def aligned(leading: Slopes, others: Sequence[Slopes]) -> list[Tensor | None]:
    """The sum of all gradients, each of ``others`` projected off ``leading`` where it has a negative product with it.

    A gradient is one vector over all parameters, 0 where it does not reach one. Of each such gradient g the part along
    l = ``leading``, <g, l> / <l, l> l, is taken out: the sum is that of the gradients as they are, with ``leading``
    counted 1 + sum of max(0, -<g, l> / <l, l>) times. Nothing is projected off a gradient of zeros.
    """
    size = _product(leading, leading)
    excess = [
        (-_product(slopes, leading) / torch.where(size > 0, size, 1.0)).clamp(min=0) for slopes in others
    ]
    scale = 1.0 + torch.stack(excess).sum()
    scaled = [None if slope is None else scale * slope for slope in leading]
    return [_sum(each) for each in zip(scaled, *others, strict=True)]


def _product(one: Slopes, other: Slopes) -> Tensor:
    products = [(a * b).sum() for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return torch.stack(products).sum() if products else torch.zeros(())


def _sum(slopes: Slopes) -> Tensor | None:
    found = [slope for slope in slopes if slope is not None]
    return functools.reduce(operator.add, found) if found else None
