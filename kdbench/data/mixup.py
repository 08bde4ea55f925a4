"""Mixup (Zhang et al., ICLR 2018): images of a batch blended with others of it, in equal shares.

The loss of a blend is that of both labels, each with its image's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.data.batches import Fed
from kdbench.utils.rng import stream


@dataclass(frozen=True, eq=False)
class Mixed:
    """What a batch was blended with: ``target`` [B] of the other images, and the own images' ``share``, 0-dim."""

    target: Tensor
    share: Tensor


def mix(fed: Fed, alpha: float, where: Sequence[Any]) -> tuple[Fed, Mixed]:
    """Blend all views of a batch with those of a permutation of it, by a share that is Beta(alpha, alpha).

    where: split id, seed, epoch and step, which the draw is a function of. The own images have the larger share, so
    that ``fed.target`` is what is seen most: another naming of the same distribution.
    """
    random = np.random.default_rng(stream("mixup", *where))
    drawn = random.beta(alpha, alpha)
    share = max(drawn, 1.0 - drawn)
    other = torch.from_numpy(random.permutation(len(fed.target))).to(fed.target.device, non_blocking=True)
    images = {name: _blend(pixels, pixels[other], share) for name, pixels in fed.images.items()}
    return replace(fed, images=images), Mixed(
        fed.target[other], torch.full((), share, device=fed.target.device)
    )


def _blend(own: Tensor, other: Tensor, share: float) -> Tensor:
    return own.mul(share).add_(other, alpha=1.0 - share)
