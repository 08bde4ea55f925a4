"""How parameters are updated: the KD literature's SGD, SGD by groups of terms, all of timm's optimisers; clipping."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import timm.optim
import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.suites import Recipe
from kdbench.suites.schema import SGD
from kdbench.train.term_momentum import GroupGradient, TermMomentum


@dataclass(frozen=True)
class Optimisation:
    """An optimiser's name and hyperparameters.

    fused: of sgd, one kernel for all parameters; False: torch's default implementation. args: further arguments of
    timm's factory. clip: largest norm of the gradient of all parameters, 0: none.
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    fused: bool = True
    name: str = SGD
    args: Mapping[str, Any] = field(default_factory=dict)
    clip: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe, fused: bool = True) -> Optimisation:
        """The optimisation that a suite's recipe prescribes."""
        sgd = recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay, fused
        return cls(*sgd, recipe.optimizer, recipe.optimizer_args, recipe.clip)

    def optimizer(self, student: nn.Module, modules: nn.Module) -> torch.optim.Optimizer:
        """An optimiser of all parameters. Raises KdbenchError where timm has none of that name and arguments."""
        if self.name != SGD:
            return self._timms(student, modules)
        optimizer = torch.optim.SGD(
            [*student.parameters(), *modules.parameters()],
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=self.fused or None,  # None: torch chooses
        )
        momentum_from_zero(optimizer)
        return optimizer

    def _timms(self, student: nn.Module, modules: nn.Module) -> torch.optim.Optimizer:
        """What timm makes: biases, norms and what the network itself exempts do not decay."""
        known = [str(name) for name in timm.optim.list_optimizers()]
        if self.name not in known or timm.optim.get_optimizer_info(self.name).second_order:
            raise unknown("optimizer", self.name, known)
        network = getattr(student, "model", student)
        exempt: set[str] = getattr(network, "no_weight_decay", set)()
        decay = functools.partial(timm.optim.param_groups_weight_decay, weight_decay=self.weight_decay)
        groups = [*decay(network, no_weight_decay_list=exempt), *decay(modules)]
        try:
            return timm.optim.create_optimizer_v2(
                groups, self.name, self.lr, self.weight_decay, **dict(self.args)
            )
        except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
            raise KdbenchError(
                f"the optimizer {self.name} cannot be made with optimizer_args {dict(self.args)}: {first_line(error)}"
            ) from error

    def by_term(self, parameters: Iterable[nn.Parameter]) -> TermMomentum:
        """An optimiser of ``parameters`` with a momentum buffer per group of terms."""
        return TermMomentum(parameters, self.lr, self.momentum, self.nesterov, self.weight_decay)

    def clip_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale all gradients so that their common norm is at most ``clip``."""
        if self.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)

    def clip_groups(self, groups: Sequence[GroupGradient]) -> Sequence[GroupGradient]:
        """The same of gradients by group, by one factor: that of their sum."""
        if not self.clip:
            return groups
        places = zip(*(group.slopes for group in groups), strict=True)
        reached = [[slope for slope in slopes if slope is not None] for slopes in places]
        whole = [torch.stack(slopes).sum(dim=0) for slopes in reached if slopes]
        factor = (self.clip / (torch.nn.utils.get_total_norm(whole) + 1e-6)).clamp(max=1.0)
        return [replace(group, slopes=[_scaled(slope, factor) for slope in group.slopes]) for group in groups]


def _scaled(slope: Tensor | None, factor: Tensor) -> Tensor | None:
    return None if slope is None else slope * factor


def check(recipe: Recipe, graphs: str = "") -> None:
    """Raise KdbenchError for an optimiser that is not there or does not take its arguments.

    graphs: steps are to be recorded as CUDA graphs.
    """
    if graphs and recipe.optimizer != SGD:
        raise KdbenchError(f"--graphs records the steps of sgd alone; leave it out for {recipe.optimizer}")
    Optimisation.of(recipe).optimizer(nn.Linear(1, 1), nn.Module())


def momentum_from_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter without a momentum buffer a buffer of zeros.

    torch creates the buffer at a parameter's first gradient, as a copy of it: momentum * 0 + gradient, the same number.
    But a fused step fails where only some parameters have a buffer, as after a change of a method's phase.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
