"""BatchNorm over the parts of a batch that several processes hold, on GPUs and CPUs.

torch.nn.SyncBatchNorm does this on GPUs alone. C channels, n values per channel here, N in all processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm

from kdbench.train import collectives


def normalise_together(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """As torch.nn.functional.batch_norm in training on the parts [n, C, ...] of all processes; returns this one's.

    The gradients of weight and bias are those of this process's output: those of all add up to the whole batch's.
    """
    mean, variance, total = _statistics(input.detach())
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((variance * total / (total - 1)).to(running_var.dtype), momentum)
    kept = torch.promote_types(input.dtype, torch.float32)
    weight = input.new_ones(len(mean), dtype=kept) if weight is None else weight
    bias = input.new_zeros(len(mean), dtype=kept) if bias is None else bias
    return _Normalised.apply(input, weight, bias, mean.to(kept), variance.to(kept), total.to(kept), eps)


def _statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and count N over all processes, accumulated as torch does: in fp64 on a CPU."""
    least = torch.float32 if input.is_cuda else torch.float64
    values = input.to(torch.promote_types(input.dtype, least))
    axes = _axes(values)
    mean = values.mean(axes)
    squares = (values - _as(mean, values)).square().sum(axes)
    count = mean.new_full((1,), values.numel() // values.shape[1])
    each = torch.stack(collectives.each(torch.cat([count, mean, squares])))
    counts, means, sums = each.split([1, len(mean), len(mean)], dim=1)
    total = counts.sum()
    common = (counts * means).sum(dim=0) / total
    return common, (sums + counts * (means - common).square()).sum(dim=0) / total, total


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        total: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, (variance + eps).rsqrt(), total)
        return batch_norm(input, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, weight, mean, scale, total = ctx.saved_tensors
        slope = gradient.to(mean.dtype)
        standard = (input - _as(mean, input)) * _as(scale, input)
        axes = _axes(input)
        own = torch.stack([slope.sum(axes), (slope * standard).sum(axes)])
        both = own.clone()
        collectives.add_up(both)
        common, along = both / total
        inner = slope - _as(common, input) - standard * _as(along, input)
        moved = _as(scale * weight, input) * inner
        along, common = own[1].to(weight.dtype), own[0].to(weight.dtype)
        return moved.to(input.dtype), along, common, None, None, None, None


def _axes(tensor: Tensor) -> list[int]:
    return [axis for axis in range(tensor.ndim) if axis != 1]


def _as(values: Tensor, like: Tensor) -> Tensor:
    """[C] as [1, C, 1, ...]."""
    return values.view(1, -1, *[1] * (like.ndim - 2))
