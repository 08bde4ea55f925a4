"""The training step: call the loss, sum its terms, back-propagate, call `update`, update the optimiser.

Everything that trains or probes a method goes through this module: cohorts, the contract's checks, the compatibility
matrix and the benchmark's reference loop. A method whose terms have momenta of their own takes one gradient per group
of terms (`kdbench.train.term_momentum`), one that aligns its gradients one per term (`kdbench.train.alignment`), all
others one in all.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kdbench.data.mixup import Mixed
from kdbench.errors import KdbenchError
from kdbench.losses import sort_to_target, swap_top
from kdbench.method import (
    TASK,
    Batch,
    Context,
    Method,
    Terms,
    Views,
    momentum_offset,
    momentum_range,
    overrides,
)
from kdbench.train.alignment import aligned
from kdbench.train.optimizers import Optimisation, momentum_from_zero
from kdbench.train.ranks import Ranks
from kdbench.train.term_momentum import GroupGradient, TermMomentum

# the student's outputs and the teacher's, None where the method has no teacher
Shown = tuple[Views, Views | None]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a method's loss: its arguments and what it returned. ``share``: of the sum; None: all."""

    batch: Batch
    student: Views
    teacher: Views | None
    returned: Terms
    share: Tensor | None = None

    @property
    def terms(self) -> Terms:
        """The terms that are summed: all but the private ones, whose names begin with ``_``, times the share."""
        terms = {name: value for name, value in self.returned.items() if not name.startswith("_")}
        return terms if self.share is None else {name: self.share * value for name, value in terms.items()}


@dataclass(frozen=True, eq=False)
class Losses:
    """Terms by name, summed over the calls of one step, and their sum ``total``; all 0-dim."""

    terms: Terms
    total: Tensor

    def detached(self) -> Losses:
        """Return the values without their graph."""
        return Losses({name: value.detach() for name, value in self.terms.items()}, self.total.detach())


class Step:
    """A training step of one student with one method, and the optimiser that the steps share."""

    def __init__(
        self,
        method: Method,
        student: nn.Module,
        modules: nn.Module,
        optimisation: Optimisation,
        label_smoothing: float = 0.0,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.method, self.modules, self._ranks = method, modules, ranks
        self._optimisation, self._label_smoothing = optimisation, label_smoothing
        self._parameters = [*student.parameters(), *modules.parameters()]
        one_momentum = momentum_range(method) == (0.0, 0.0)
        if method.leading_term and not one_momentum:
            raise KdbenchError(
                f"{method.name} has both momentum offsets and a leading term; it can have one of the two"
            )
        self._optimizer: torch.optim.Optimizer = (
            optimisation.optimizer(student, modules)
            if one_momentum
            else optimisation.by_term(self._parameters)
        )

    def __call__(
        self,
        batch: Batch,
        shown: Sequence[Shown],
        mixed: Mixed | None = None,
        share: Tensor | None = None,
    ) -> Losses:
        """One step: a call of the loss for each item of ``shown``, and one update of all parameters.

        mixed: of a batch that was blended with other images; the loss is then called with both labels.
        share: what the loss counts for where several ranks add up their gradients; it is then returned so.
        Everything runs on the device and changes no number of the host, so a step can be recorded and replayed.
        Raises KdbenchError when the loss returns something else than named scalars.
        """
        calls = [self._call(part, by, views) for views in shown for part, by in _parts(batch, mixed, share)]
        if isinstance(self._optimizer, TermMomentum):
            losses = summed(calls)
            groups = term_gradients(self.method, losses, self._optimizer.parameters)
            self._ranks.add_up(slope for group in groups for slope in group.slopes if slope is not None)
            call_update(self.method, calls, self.modules)
            self._optimizer.step(self._optimisation.clip_groups(groups))
        else:
            losses = self._backward(calls) if self.method.leading_term is None else self._aligned(calls)
            call_update(self.method, calls, self.modules)
            self._optimisation.clip_gradients(self._parameters)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return losses.detached()

    def _call(self, batch: Batch, share: Tensor | None, views: Shown) -> Call:
        call = call_loss(self.method, batch, *views, self.modules)
        call = smoothed(self.method, call, self._label_smoothing) if self._label_smoothing else call
        return replace(call, share=share)

    def _backward(self, calls: Sequence[Call]) -> Losses:
        losses = backward(calls)
        self._ranks.add_up(p.grad for p in self._parameters if p.grad is not None)
        return losses

    def _aligned(self, calls: Sequence[Call]) -> Losses:
        """As `backward`, with the gradients of the other terms aligned to that of the leading one."""
        losses, first = summed(calls), self.method.leading_term
        if first not in losses.terms:
            raise KdbenchError(
                f"{self.method.name}: leading_term is {first!r}, but the terms are {', '.join(losses.terms)}"
            )
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        groups = [[first], *([name] for name in losses.terms if name != first)]
        slopes = gradients(losses, groups, parameters)
        self._ranks.add_up(slope for group in slopes for slope in group if slope is not None)
        leading, *rest = slopes
        for parameter, slope in zip(parameters, aligned(leading, rest), strict=True):
            parameter.grad = slope
        return losses

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def move_rate(self, device: torch.device) -> None:
        """Hold the learning rate in a tensor on ``device``, where a recorded step reads it anew at each replay."""
        for group in self._optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, for a checkpoint."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, but for the learning rates: each step has its own."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(dict(state))
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # where steps were recorded it was a tensor
        if isinstance(self._optimizer, torch.optim.SGD):
            momentum_from_zero(
                self._optimizer
            )  # older checkpoints lack buffers of parameters without a gradient


def build_modules(method: Method, context: Context) -> nn.Module:
    """What the method builds. Raises KdbenchError for anything but a module."""
    modules: Any = method.build(context)
    if not isinstance(modules, nn.Module):
        raise KdbenchError(f"{method.name}.build must return a torch.nn.Module, got {type(modules).__name__}")
    return modules


def call_loss(
    method: Method, batch: Batch, student: Views, teacher: Views | None, modules: nn.Module
) -> Call:
    """Call the method's loss, with the teacher's logits as its ``teacher_fix`` corrects them.

    Raises KdbenchError when it returns something else than named scalars.
    """
    teacher = corrected(method, batch, teacher)
    returned: Any = method.loss(batch, student, teacher, modules)
    if not isinstance(returned, dict) or not any(not name.startswith("_") for name in returned):
        raise KdbenchError(
            f"{method.name}.loss must return a dict of named scalar tensors, got {returned!r:.80}"
        )
    call = Call(batch, student, teacher, returned)
    for name, value in call.terms.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise KdbenchError(f"{method.name}.loss: the term {name!r} must be a 0-dim tensor, got {shape}")
    return call


def _parts(batch: Batch, mixed: Mixed | None, share: Tensor | None) -> list[tuple[Batch, Tensor | None]]:
    """A batch with each of its labels, and what each counts for; ``share``: of a batch that is not mixed."""
    if mixed is None:
        return [(batch, share)]
    return [(batch, mixed.share), (replace(batch, target=mixed.target), 1 - mixed.share)]


def smoothed(method: Method, call: Call, amount: float) -> Call:
    """``call`` with smoothed labels in its cross-entropy with the labels, the term ``ce``."""
    weight, logits = _task_weight(method), _task_logits(method, call.student)
    plain, smooth = (
        sum(cross_entropy(z, call.batch.target, label_smoothing=by) for z in logits) for by in (0.0, amount)
    )
    return replace(call, returned={**call.returned, TASK: call.returned[TASK] + weight * (smooth - plain)})


def smoothing_refusal(method: Method, call: Call) -> str | None:
    """Why the labels of ``method`` cannot be smoothed, as a sentence; None where they can.

    They can where the term ``ce`` is its weight times the cross-entropy of the student's logits, summed over views.
    """
    if TASK in call.terms:
        logits = _task_logits(method, call.student)
        expected = _task_weight(method) * sum(cross_entropy(z, call.batch.target) for z in logits)
        if torch.allclose(call.terms[TASK], torch.as_tensor(expected), rtol=1e-4, atol=1e-6):
            return None
    return (
        f"label_smoothing has no meaning for {method.name}: it has no term {TASK!r} that is the cross-entropy of the "
        "student's logits with the labels"
    )


def _task_weight(method: Method) -> float:
    """The value of the field that switches the term ``ce`` off, else 1."""
    fields = [key for key, terms in method.weights.items() if TASK in (terms, *terms)]
    return float(getattr(method, fields[0])) if fields else 1.0


def _task_logits(method: Method, student: Views) -> list[Tensor]:
    """The student's logits on each view of the call."""
    return (
        [student.logits] if len(method.needs.views) == 1 else [student[v].logits for v in method.needs.views]
    )


def corrected(method: Method, batch: Batch, teacher: Views | None) -> Views | None:
    """The teacher's outputs that the method is shown: as they are, or corrected by its option ``teacher_fix``."""
    if teacher is None or method.teacher_fix == "none":
        return teacher
    fix = {"swap": swap_top, "sort": sort_to_target}[method.teacher_fix]
    return teacher.with_logits(lambda logits: fix(logits, batch.target))


def summed(calls: Sequence[Call]) -> Losses:
    """Each term summed over ``calls`` (at least one), and the sum of all terms."""
    terms = [call.terms for call in calls]
    added = {name: functools.reduce(operator.add, [each[name] for each in terms]) for name in terms[0]}
    return Losses(added, torch.stack(list(added.values())).sum())


def backward(calls: Sequence[Call]) -> Losses:
    """Back-propagate the sum of all terms of ``calls`` and return it with its terms."""
    losses = summed(calls)
    losses.total.backward()
    return losses


def term_gradients(method: Method, losses: Losses, parameters: Sequence[nn.Parameter]) -> list[GroupGradient]:
    """One gradient per group of terms with equal momentum offsets, by as many backward passes.

    Raises KdbenchError when all terms have the same offset: then there is nothing to tell apart.
    """
    groups: dict[float, list[str]] = {}
    for name in losses.terms:
        groups.setdefault(momentum_offset(method, name), []).append(name)
    if len(groups) < 2:
        raise KdbenchError(
            f"{method.name}: all of its terms have the momentum offset {next(iter(groups)):g}; give them different "
            "offsets, or change the recipe's momentum"
        )
    slopes = gradients(losses, list(groups.values()), parameters)
    return [
        GroupGradient(offset, method.decayed in names, each)
        for (offset, names), each in zip(groups.items(), slopes, strict=True)
    ]


def gradients(
    losses: Losses, groups: Sequence[Sequence[str]], parameters: Sequence[nn.Parameter]
) -> list[list[Tensor | None]]:
    """The gradient of the sum of each group of terms: a tensor per parameter, None where the group does not reach it.

    Frees the graph with the last one.
    """
    trained = [place for place, parameter in enumerate(parameters) if parameter.requires_grad]
    all_slopes = []
    for number, names in enumerate(groups, start=1):
        total = torch.stack([losses.terms[name] for name in names]).sum()
        slopes: list[Tensor | None] = [None] * len(parameters)
        if total.requires_grad:
            inputs = [parameters[place] for place in trained]
            found = torch.autograd.grad(total, inputs, retain_graph=number < len(groups), allow_unused=True)
            for place, slope in zip(trained, found, strict=True):
                slopes[place] = slope
        all_slopes.append(slopes)
    return all_slopes


def call_update(method: Method, calls: Sequence[Call], modules: nn.Module) -> None:
    """Call the method's ``update``, where it has one, once per call of its loss, without gradients."""
    if not overrides(method, "update"):
        return
    with torch.no_grad():
        for call in calls:
            detached = {name: value.detach() for name, value in call.returned.items()}
            method.update(call.batch, call.student, call.teacher, modules, detached)
