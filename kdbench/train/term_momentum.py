"""SGD with a momentum buffer for each group of loss terms, after DOT (Zhao et al., ICCV 2023).

Like torch.optim's optimisers it reads and writes tensors alone, so that a step can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class GroupGradient:
    """The gradient of one group of terms: a tensor per parameter, None where the group does not reach it.

    offset: what the group's momentum differs by from the optimiser's. decayed: whether it takes the weight decay.
    """

    offset: float
    decayed: bool
    slopes: Sequence[Tensor | None]


class TermMomentum(torch.optim.Optimizer):
    """A buffer v_g per group g: v_g <- (momentum + offset_g) v_g + gradient_g, p <- p - lr sum_g v_g.

    The decayed group's gradient of p includes weight_decay p. A parameter that one group alone reaches has the plain
    momentum, and one that the decayed group does not reach has its decay in the first group that does. What reaches a
    parameter is seen anew in each step, as in the released code; a gradient of zeros does reach it. With ``nesterov``,
    gradient_g + (momentum + offset_g) v_g stands in for v_g in the last formula.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float | Tensor,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, in the order of a group's gradients."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, groups: Sequence[GroupGradient]) -> None:  # type: ignore[override]
        """Update all parameters that a group reaches. ``groups``: of different offsets, in any order."""
        parameters, lr = self.parameters, self.param_groups[0]["lr"]
        ordered = sorted(groups, key=lambda group: group.offset)
        reaching = [[g for g in ordered if g.slopes[place] is not None] for place in range(len(parameters))]
        moves: dict[int, Tensor] = {}
        for group in ordered:
            new = self._moves(group, reaching, parameters)
            both = [place for place in new if place in moves]
            sums = torch._foreach_add([moves[p] for p in both], [new[p] for p in both]) if both else ()
            moves |= new | dict(zip(both, sums, strict=True))
        if moves:
            by = torch._foreach_mul(list(moves.values()), lr)
            torch._foreach_sub_([parameters[place] for place in moves], by)

    def _moves(
        self,
        group: GroupGradient,
        reaching: Sequence[Sequence[GroupGradient]],
        parameters: Sequence[nn.Parameter],
    ) -> dict[int, Tensor]:
        """Renew the group's buffers; return how far each parameter that it reaches moves at a rate of 1.

        reaching: the groups that reach each parameter.
        """
        options = self.param_groups[0]
        slopes = {place: slope for place, slope in enumerate(group.slopes) if slope is not None}
        decaying = [place for place in slopes if options["weight_decay"] and _decays(group, reaching[place])]
        if decaying:
            weights: list[Tensor] = [parameters[place] for place in decaying]
            more = torch._foreach_add([slopes[p] for p in decaying], weights, alpha=options["weight_decay"])
            slopes |= zip(decaying, more, strict=True)
        if not slopes:
            return {}
        momenta = [
            options["momentum"] + (group.offset if len(reaching[place]) > 1 else 0.0) for place in slopes
        ]
        buffers = [self._buffer(parameters[place], group.offset) for place in slopes]
        torch._foreach_mul_(buffers, momenta)
        torch._foreach_add_(buffers, list(slopes.values()))
        if not options["nesterov"]:
            return dict(zip(slopes, buffers, strict=True))
        ahead = torch._foreach_add(list(slopes.values()), torch._foreach_mul(buffers, momenta))
        return dict(zip(slopes, ahead, strict=True))

    def _buffer(self, parameter: nn.Parameter, offset: float) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        name = f"momentum{offset:+g}"
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


def _decays(group: GroupGradient, reaching: Sequence[GroupGradient]) -> bool:
    """Whether ``group`` takes the decay of a parameter that ``reaching`` reach."""
    decayed = [each for each in reaching if each.decayed]
    return group is (decayed or reaching)[0]
