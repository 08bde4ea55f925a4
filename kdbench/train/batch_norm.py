"""Another arithmetic for BatchNorm in training, whichever module or function asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

# Takes input [B, C, ...], running mean and variance [C] or None, weight and bias [C] or None, momentum and eps as
# torch.nn.functional.batch_norm; returns the normalised input.
Normalise = Callable[
    [Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, float], Tensor
]


class BatchNormBy(TorchFunctionMode):
    """Within its ``with`` statement, ``normalise`` stands in for torch.nn.functional.batch_norm in training.

    So it serves torch's and timm's BatchNorm modules and the function itself; in evaluation nothing changes.
    """

    def __init__(self, normalise: Normalise) -> None:
        super().__init__()
        self._normalise = normalise

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not batch_norm:
            return func(*args, **kwargs)
        call = _arguments(*args, **kwargs)
        return batch_norm(*args, **kwargs) if call is None else self._normalise(*call)


def _arguments(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, float] | None:
    """What `Normalise` takes; None in evaluation."""
    return (input, running_mean, running_var, weight, bias, momentum, eps) if training else None
