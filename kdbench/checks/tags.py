"""The tags of a method, each in both directions: what is declared must be so, and what is so must be declared."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import registry
from kdbench.checks import problem as problems
from kdbench.checks.problem import MIDDLE, PHASES, Problem, Side
from kdbench.checks.static import variants
from kdbench.checks.subject import Subject, require
from kdbench.checks.tensors import difference
from kdbench.method import Batch, Method, Needs, Views, overrides

SAME, OTHER = 1e-7, 1e-5  # relative differences in fp64: below SAME is equal, above OTHER is not


def strict(tag: str, declared: bool, gap: float, holds: str, breaks: str) -> None:
    """``declared`` allows a difference: then there must be one, else there must be none."""
    if declared:
        require(gap > OTHER, f"{tag} is declared, but {holds}")
    else:
        require(gap < SAME, f"{breaks} (relative difference {gap:.1e}): declare {tag}")


def states(problem: Problem) -> Iterator[nn.Module]:
    """The modules at the start and after some steps."""
    modules = problems.fresh(problem)
    yield modules
    yield problems.warmed(problem, modules)


def check_zero_at_match(subject: Subject) -> None:
    """Exactly the terms of zero_at_match vanish, with their gradient, where student and teacher agree."""
    method = subject.method
    if not method.needs.teacher:
        require(not method.zero_at_match, "zero_at_match needs a teacher")
        return
    try:
        problem = problems.make(method, max(8, method.min_batch), dtype=torch.float64, offer="equal shapes")
        require(method.skip(problem.context) is None, "zero_at_match is declared, but the pair of equal shapes is skipped")
    except AssertionError:
        if not method.zero_at_match:
            return
        raise
    alike = problem.matched()
    modules = problems.fresh(problem)
    sizes: dict[str, list[tuple[float, float, float, float]]] = {}
    for epoch in PHASES:
        for name in problem.run(modules, epoch).terms:
            away, at = (_value_and_slope(p, modules, epoch, name) for p in (problem, alike))
            sizes.setdefault(name, []).append((*away, *at))
    unknown = [name for name in method.zero_at_match if name not in sizes]
    require(not unknown, f"zero_at_match names {', '.join(unknown)}, but the terms are {', '.join(sizes)}")
    for name, found in sizes.items():
        awake = [s for s in found if s[0] > 1e-9]
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
    slopes = torch.autograd.grad(value, problem.leaves, allow_unused=True) if value.requires_grad else ()
    return float(value.detach().abs()), max((float(s.abs().max()) for s in slopes if s is not None), default=0.0)


def check_shift(subject: Subject) -> None:
    """A constant added to a row of logits changes nothing, or shift_invariant=False is declared."""
    method = subject.method
    worst = 0.0
    for seed in (0, 1):
        problem = problems.make(method, max(7, method.min_batch), seed=seed, dtype=torch.float64)
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
    for seed in (0, 1):
        problem = problems.make(method, max(7, method.min_batch), seed=seed, dtype=torch.float64)
        order = torch.randperm(len(problem.target), generator=torch.Generator().manual_seed(seed))
        for modules in states(problem):
            a, b = (p.run(copy.deepcopy(modules)).terms for p in (problem, problem.rows(order)))
            worst = max(worst, difference(a, b)[0])
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
            a, b = problem.run(copy.deepcopy(modules), epoch), renamed.run(copy.deepcopy(turned), epoch)
            gap, name = difference(a.terms, b.terms)
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


def check_coupled(subject: Subject) -> None:
    """The loss of a batch is the mean over its halves, or coupled is declared and it is not."""
    method = subject.method
    count = 2 * max(4, method.min_batch)
    worst = 0.0
    for seed in (0, 1):
        problem = problems.make(method, count, seed=seed, dtype=torch.float64)
        for modules in states(problem):
            for epoch in PHASES[1:]:
                worst = max(worst, _interaction(problem, modules, epoch))
    strict(
        "coupled",
        method.coupled,
        worst,
        "the loss of a batch is the mean over its halves",
        "a sample's loss depends on its batch mates",
    )


def _interaction(problem: Problem, modules: nn.Module, epoch: float) -> float:
    """How far the whole is from the mean of its halves. Where random numbers are drawn, the halves would see others:
    then how far L(a, b) + L(c, d) is from L(a, d) + L(c, b)."""

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


def check_needs(subject: Subject) -> None:
    """All that is read is declared in needs, and all that is declared is read."""
    read: set[str] = set()
    for method in variants(subject.method):
        problem = problems.make(method, max(7, method.min_batch))
        spied = dataclasses.replace(
            problem,
            watch=lambda role, views: Spy(views._outputs, views._needs, role, read),
            watch_batch=lambda batch: SpyBatch(**{f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}).on(read),
        )
        modules = problems.fresh(spied)
        for epoch in PHASES:
            run = spied.run(modules, epoch, last=True)
            if overrides(method, "update"):
                spied.update(run, modules)
        if overrides(method, "predict"):
            method.predict(Spy(problem.student.outputs(method.needs), method.needs, "student", read), modules)
    needs = subject.method.needs
    flags = [f.name for f in dataclasses.fields(Needs) if f.name not in ("views", "teacher")]
    unread = [flag for flag in flags if getattr(needs, flag) and flag not in read]
    unread += [f"the view {view!r}" for view in needs.views if f"student {view}" not in read]
    unread += ["teacher"] if needs.teacher and not any(what.startswith("teacher ") for what in read) else []
    require(not unread, f"needs declares what is never read: {', '.join(unread)}")


class Spy(Views):
    """Notes what is read: a need's name and "<role> <view>"."""

    def __init__(self, outputs: Any, needs: Needs, role: str, read: set[str]) -> None:
        super().__init__(outputs, needs)
        self._role, self._seen = role, read

    def __getitem__(self, view: str) -> Spy:
        return Spy(super().__getitem__(view)._outputs, self._needs, self._role, self._seen)

    def _read(self, field: str, need: str) -> Any:
        value = super()._read(field, need)
        self._seen |= {need, f"{self._role} {next(iter(self._outputs))}"}
        return value

    @property
    def logits(self) -> Tensor:
        self._seen.add(f"{self._role} {next(iter(self._outputs))}")
        return super().logits


@dataclasses.dataclass(frozen=True)
class SpyBatch(Batch):
    """Notes that the index is read."""

    def on(self, read: set[str]) -> SpyBatch:
        object.__setattr__(self, "_seen", read)
        return self

    @property
    def index(self) -> Tensor:
        value = super().index
        self._seen.add("index")  # type: ignore[attr-defined]
        return value


def check_weights(subject: Subject) -> None:
    """Each field of weights at 0 switches off exactly its terms."""
    method = subject.method
    problem = problems.make(method, max(8, method.min_batch), dtype=torch.float64)
    modules = problems.warmed(problem)
    full = {epoch: problem.run(copy.deepcopy(modules), epoch).terms for epoch in PHASES}
    for field, names in method.weights.items():
        named = (names,) if isinstance(names, str) else tuple(names)
        strange = [name for name in named if name not in full[MIDDLE]]
        require(not strange, f"weights[{field!r}] names {', '.join(strange)}; the terms are {', '.join(full[MIDDLE])}")
        off = dataclasses.replace(problem, method=registry.create(method.name, {**_values(method), field: 0}))
        for epoch, terms in full.items():
            left = off.run(copy.deepcopy(modules), epoch).terms
            for name, value in left.items():
                if name in named:
                    slopes = torch.autograd.grad(value, problem.leaves, allow_unused=True) if value.requires_grad else ()
                    dead = float(value) == 0 and not any(bool(s.any()) for s in slopes if s is not None)
                    require(dead, f"{field}=0 leaves {name!r} at {float(value):.3g}")
                else:
                    require(torch.equal(value, terms[name]), f"{field}=0 changes {name!r} too")
        for name in named:
            awake = any(float(terms[name]) != 0 for terms in full.values())
            require(awake, f"{name!r} is 0 in every phase by default, so {field} switches nothing off")


def _values(method: Method) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


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
        modules = problems.fresh(problem)
        terms = problem.run(modules).terms
    except Exception:  # whatever it raises, it does not work
        return None
    found = set()
    for name, value in terms.items():
        slopes = torch.autograd.grad(value, problem.leaves, allow_unused=True, retain_graph=True)
        sizes = [s.abs().max() for s in slopes if s is not None]
        if torch.isfinite(value) and any(torch.isfinite(s) and s > 1e-12 for s in sizes):
            found.add(name)
    return found


def check_predict(subject: Subject) -> None:
    """predict gives [B, C] and uses the modules exactly where keeps_modules says so."""
    method = subject.method
    if not overrides(method, "predict"):
        require(not method.keeps_modules, "keeps_modules is declared without a predict of its own")
        return
    problem = problems.make(method, 7)
    modules = problems.fresh(problem).eval()
    outputs = problem.student.outputs(method.needs)
    views = Views({method.needs.views[0]: outputs[method.needs.views[0]]}, method.needs)
    with torch.no_grad():
        logits = method.predict(views, modules)
        shape = (7, problem.context.num_classes)
        require(tuple(logits.shape) == shape, f"predict gives {tuple(logits.shape)} instead of {shape}")
        for parameter in modules.parameters():
            parameter += 1.0
        used = not torch.equal(logits, method.predict(views, modules))
    require(used or not method.keeps_modules, "keeps_modules is declared, but predict does not use the modules")
    require(method.keeps_modules or not used, "predict uses the modules: declare keeps_modules")


def check_distinct(subject: Subject) -> None:
    """Beside the cross-entropy the gradient is parallel to no other method's, unless alias_of says so."""
    mine, vectors = subject.method, subject.lab.directions
    for entry in registry.entries():
        cls = entry.cls
        if cls is None or cls.name == mine.name or not cls.__module__.startswith("kdbench.methods."):
            continue
        if cls.name in (mine.alias_of,) or cls.alias_of == mine.name or (mine.alias_of and cls.alias_of == mine.alias_of):
            continue
        for offer in problems.OFFERS:
            a, b = (vectors(name, offer) for name in (mine.name, cls.name))
            if a is not None and b is not None:
                cosine = _cosine(a, b)
                require(cosine <= 0.999, f"its gradient is that of {cls.name} (cosine {cosine:.6f}): declare alias_of")
                break


def _cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of gradients by view; a view that one method does not see counts as 0."""
    product = sum(float(a[view] @ b[view]) for view in a.keys() & b.keys())
    lengths = [sum(float(v.square().sum()) for v in each.values()) ** 0.5 for each in (a, b)]
    return product / max(lengths[0] * lengths[1], 1e-300)


def direction(name: str, offer: str) -> dict[str, Tensor] | None:
    """The gradient by view of all terms but "ce" on one common problem, flat; None if the method cannot run there."""
    method = registry.create(name, {})
    try:
        problem = problems.make(method, 16, 10, 3, torch.float64, offer, tied=True)
        if method.skip(problem.context) is not None:
            return None
        terms = problem.run(problems.warmed(problem)).terms
        total = torch.stack([v for k, v in terms.items() if k != "ce"] or list(terms.values())).sum()
        found = {}
        for view in method.needs.views:
            leaves = problem.student.leaves(view)
            slopes = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)
            found[view] = torch.cat([(torch.zeros_like(x) if s is None else s).flatten() for x, s in zip(leaves, slopes, strict=True)])
        return found
    except Exception:  # it fails its own checks
        return None
