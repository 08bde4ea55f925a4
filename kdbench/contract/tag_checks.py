"""The tags of a method, each in both directions: what is declared must be so, and what is so must be declared."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from kdbench.contract.core import Subject, require
from kdbench.contract.loss_checks import difference, gradients
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.models import Side
from kdbench.contract.synthetic.modules import fresh, states
from kdbench.contract.synthetic.problem import MIDDLE, PHASES, Problem
from kdbench.method import Method, is_separable, overrides
from kdbench.train.batch_norm import BatchNormBy, Normalise

SAME, OTHER = 1e-7, 1e-5  # relative differences in fp64: below SAME is equal, above OTHER is not
DRAWS, ERRORS = (
    64,
    6.0,
)  # seeds that a loss with random numbers is averaged over, and the standard errors it is given


def strict(tag: str, declared: bool, gap: float, holds: str, breaks: str) -> None:
    """``declared`` allows a difference: then there must be one, else there must be none."""
    if declared:
        require(gap > OTHER, f"{tag} is declared, but {holds}")
    else:
        require(gap < SAME, f"{breaks} (relative difference {gap:.1e}): declare {tag}")


def check_zero_at_match(subject: Subject) -> None:
    """Exactly the terms of zero_at_match vanish, with their gradient, where student and teacher agree."""
    method = subject.method
    if not method.needs.teacher:
        require(not method.zero_at_match, "zero_at_match needs a teacher")
        return
    try:
        problem = problems.make(method, max(8, method.min_batch), dtype=torch.float64, offer="equal shapes")
        require(
            method.skip(problem.context) is None,
            "zero_at_match is declared, but the pair of equal shapes is skipped",
        )
    except AssertionError:
        if not method.zero_at_match:
            return
        raise
    alike = problem.matched()
    modules = fresh(problem)
    sizes: dict[str, list[tuple[float, float, float, float]]] = {}
    for epoch in PHASES:
        for name in problem.run(modules, epoch).terms:
            away, at = (_value_and_slope(p, modules, epoch, name) for p in (problem, alike))
            sizes.setdefault(name, []).append((*away, *at))
    unknown = [name for name in method.zero_at_match if name not in sizes]
    require(not unknown, f"zero_at_match names {', '.join(unknown)}, but the terms are {', '.join(sizes)}")
    for name, values in sizes.items():
        awake = [s for s in values if s[0] > 1e-9]
        if name in method.zero_at_match:
            require(bool(awake), f"zero_at_match lists {name!r}, which is 0 everywhere")
            for value, slope, left, tilt in awake:
                ok = left <= 1e-6 * max(1, value) and tilt <= 1e-6 * max(1, slope)
                require(ok, f"{name!r} is {left:.1e} (gradient {tilt:.1e}) where student and teacher agree")
        elif awake:
            gone = all(left <= 1e-10 * value and tilt <= 1e-8 * slope for value, slope, left, tilt in awake)
            require(not gone, f"{name!r} vanishes where student and teacher agree: list it in zero_at_match")


def _value_and_slope(problem: Problem, modules: nn.Module, epoch: float, name: str) -> tuple[float, float]:
    value = problem.run(modules, epoch).terms[name]
    return float(value.detach().abs()), max(
        (float(s.abs().max()) for s in gradients(value, problem.leaves)), default=0.0
    )


def check_shift(subject: Subject) -> None:
    """A constant added to a row of logits changes nothing, or shift_invariant=False is declared."""
    method = subject.method
    worst = 0.0
    problem = problems.make(method, max(7, method.min_batch), dtype=torch.float64)
    for modules, moved in zip(states(problem), states(problem.sides(_shift)), strict=True):
        for epoch in PHASES:
            a, b = problem.run(modules, epoch), problem.sides(_shift).run(moved, epoch)
            worst = max(worst, difference(a.terms, b.terms)[0])
    strict(
        "shift_invariant = False",
        not method.shift_invariant,
        worst,
        "a constant added to a row of logits changes nothing",
        "a constant added to a row of logits changes the loss",
    )


def _shift(role: str, side: Side) -> Side:
    """Another constant a row; the same one for all rows where the logits come from the head."""
    by = 3.0 if role == "student" else -2.0
    return side.changed(
        scores=lambda s: s + by * torch.linspace(0.5, 2, len(s), dtype=s.dtype)[:, None],
        head=lambda w, b: (w, b + by),
    )


def check_sample_order(subject: Subject) -> None:
    """The order of the samples changes nothing, or order_dependent is declared."""
    method = subject.method
    worst = 0.0
    problem = problems.make(method, max(7, method.min_batch), dtype=torch.float64)
    order = torch.randperm(len(problem.target), generator=torch.Generator().manual_seed(0))
    for modules in states(problem):
        worst = max(worst, _gap((problem, modules), (problem.rows(order), modules))[0])
    strict(
        "order_dependent",
        method.order_dependent,
        worst,
        "the order of the samples changes nothing",
        "the order of the samples changes the loss",
    )


def check_class_order(subject: Subject) -> None:
    """Renumbering the classes changes nothing."""
    method, classes = subject.method, max(11, subject.method.min_classes)  # no other size here is 11
    problem = problems.make(method, max(7, method.min_batch), classes, dtype=torch.float64)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    new = order.argsort()  # old number -> new number
    renamed = problem.sides(
        lambda role, side: side.changed(scores=lambda s: s[:, order], head=lambda w, b: (w[order], b[order]))
    )
    context = dataclasses.replace(renamed.context, train_targets=new[problem.context.train_targets])
    renamed = dataclasses.replace(renamed, target=new[problem.target], context=context)
    for modules in states(problem):
        turned = _renumbered(modules, classes, order)
        for epoch in PHASES:
            gap, name = _gap((problem, modules), (renamed, turned), epoch)
            require(gap < SAME, f"renumbering the classes changes {name!r} (relative difference {gap:.1e})")


def _renumbered(modules: nn.Module, classes: int, order: Tensor) -> nn.Module:
    """A copy whose parameters and buffers have every dimension of size C put in the new order."""
    turned = copy.deepcopy(modules)
    with torch.no_grad():
        for tensor in [*turned.parameters(), *turned.buffers()]:
            value = tensor.detach().clone()
            for dim in range(value.ndim):
                if value.shape[dim] == classes:
                    value = value.index_select(dim, order)
            tensor.copy_(value)
    return turned


def _gap(
    one: tuple[Problem, nn.Module], other: tuple[Problem, nn.Module], epoch: float = MIDDLE
) -> tuple[float, str]:
    """The largest relative difference of the terms of two problems, each with its modules, and whose it is.

    Where random numbers are drawn, which fall on other samples and classes in the other problem, it is the difference
    of the means over `DRAWS` seeds beyond `ERRORS` standard errors. Each seed serves both problems: what does not
    vary is compared as strictly as without random numbers.
    """

    def run(side: tuple[Problem, nn.Module], seed: int) -> problems.Run:
        problem, modules = side
        return dataclasses.replace(problem, seed=seed).run(copy.deepcopy(modules), epoch)

    first = [run(side, one[0].seed) for side in (one, other)]
    if not any(each.drew for each in first):
        return difference(first[0].terms, first[1].terms)
    sides = [[run(side, seed).detached for seed in range(DRAWS)] for side in (one, other)]
    worst = (0.0, next(iter(first[0].terms)))
    for name in first[0].terms:
        a, b = (torch.stack([terms[name].double() for terms in side]) for side in sides)
        gap, error = (a - b).mean().abs(), (a - b).std() / math.sqrt(DRAWS)
        scale = torch.maximum(a.mean().abs(), b.mean().abs()).clamp(min=1e-8)
        beyond = (gap - ERRORS * error).clamp(min=0) / scale
        worst = max(worst, (float(beyond.nan_to_num(nan=math.inf)), name))
    return worst


def check_coupled(subject: Subject) -> None:
    """The loss of a batch is the mean over its halves, or coupled is declared and it is not."""
    method = subject.method
    count = 2 * max(4, method.min_batch)
    worst = 0.0
    problem = problems.make(method, count, dtype=torch.float64)
    for modules in states(problem):
        for epoch in PHASES:
            worst = max(worst, _interaction(problem, modules, epoch))
    strict(
        "coupled",
        method.coupled,
        worst,
        "the loss of a batch is the mean over its halves",
        "a sample's loss depends on its batch mates",
    )


def _interaction(problem: Problem, modules: nn.Module, epoch: float) -> float:
    """Measure how far the loss of a batch is from the mean of its halves' losses.

    Where random numbers are drawn, the halves would get others; then it is how far L(a, b) + L(c, d) is from L(a,
    d) + L(c, b).
    """

    def run(p: Problem) -> problems.Run:
        return p.run(copy.deepcopy(modules), epoch)

    whole = run(problem)
    halves = [problem.rows(rows) for rows in torch.arange(len(problem.target)).chunk(2)]
    if not whole.drew:
        parts = [run(half).terms for half in halves]
        return difference(whole.terms, {k: (parts[0][k] + parts[1][k]) / 2 for k in whole.terms})[0]
    others = [problem.again(50).rows(rows) for rows in torch.arange(len(problem.target)).chunk(2)]
    sums = [
        {k: run(a.joined(b)).terms[k] + run(c.joined(d)).terms[k] for k in whole.terms}
        for a, b, c, d in ((halves[0], halves[1], *others), (halves[0], others[1], others[0], halves[1]))
    ]
    return difference(*sums)[0]


def check_separable(subject: Subject) -> None:
    """The loss is the mean over parts that share BatchNorm's statistics, or separable = False is declared."""
    method = subject.method
    if overrides(method, "update"):
        require(
            method.separable is None, "separable is declared, but what has an `update` is never separable"
        )
        return
    problem = problems.make(method, 2 * max(4, method.min_batch) + 1, dtype=torch.float64)
    strict(
        "separable = False",
        not is_separable(method),
        max(_parting(problem, modules, epoch) for modules in states(problem) for epoch in PHASES),
        "the loss is the mean over parts of the batch and draws nothing",
        "parts of a batch cannot be computed apart",
    )


def _parting(problem: Problem, modules: nn.Module, epoch: float) -> float:
    """Measure how far the loss is from the weighted mean over two parts; infinite where random numbers are drawn."""
    statistics = _Statistics()
    before = torch.get_rng_state()
    with BatchNormBy(statistics.note):
        whole = problem.run(copy.deepcopy(modules), epoch)
    if whole.drew or not torch.equal(before, torch.get_rng_state()):
        return math.inf
    count = len(problem.target)
    mean = {name: torch.zeros_like(value) for name, value in whole.terms.items()}
    for rows in torch.arange(count).tensor_split(2):
        with BatchNormBy(statistics.replay()):
            part = problem.rows(rows).run(copy.deepcopy(modules), epoch)
        mean = {name: value + len(rows) / count * part.terms[name] for name, value in mean.items()}
    return difference(whole.terms, mean)[0]


class _Statistics:
    """The mean and the variance of the input of each BatchNorm in one run of a loss, in order."""

    def __init__(self) -> None:
        self._noted: list[tuple[Tensor, Tensor]] = []

    def note(self, input: Tensor, *rest: Any) -> Tensor:
        """Normalise ``input`` by its own statistics."""
        axes = [axis for axis in range(input.ndim) if axis != 1]
        constant = input.detach()  # values are compared, not gradients
        self._noted.append((constant.mean(axes), constant.var(axes, correction=0)))
        return _normalised(input, *self._noted[-1], *rest)

    def replay(self) -> Normalise:
        """Return what normalises by the statistics that were noted, from the first on."""
        noted = iter(self._noted)
        return lambda input, *rest: _normalised(input, *next(noted), *rest)


def _normalised(input: Tensor, mean: Tensor, variance: Tensor, *rest: Any) -> Tensor:
    _, _, weight, bias, _, eps = rest
    return batch_norm(input, mean, variance, weight, bias, eps=eps)


def check_minima(subject: Subject) -> None:
    """min_batch and min_classes are as low as they can be: one less breaks the loss or silences a term."""
    method = subject.method
    for tag, least, count, classes in (
        ("min_batch", method.min_batch > 1, method.min_batch - 1, max(10, method.min_classes)),
        ("min_classes", method.min_classes > 2, max(7, method.min_batch), method.min_classes - 1),
    ):
        if least:
            sizes = f"{count} samples" if tag == "min_batch" else f"{classes} classes"
            awake = _awake(method, max(8, method.min_batch), max(10, method.min_classes))
            require(_awake(method, count, classes) != awake, f"{tag} is too high: {sizes} work as well")


def _awake(method: Method, count: int, classes: int) -> set[str] | None:
    """The terms that have a finite value and a gradient; None where the loss raises."""
    problem = problems.make(method, count, classes, dtype=torch.float64)
    try:
        modules = fresh(problem)
        terms = problem.run(modules).terms
    except Exception:  # whatever it raises, it does not work
        return None
    names = set()
    for name, value in terms.items():
        sizes = [s.abs().max() for s in gradients(value, problem.leaves)]
        if torch.isfinite(value) and any(torch.isfinite(s) and s > 1e-12 for s in sizes):
            names.add(name)
    return names
