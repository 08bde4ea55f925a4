"""What ``loss`` returns on synthetic batches: finite scalars, right gradients, nothing changed on the way."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.contract.core import Subject, require
from kdbench.contract.static_checks import variants
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.models import Side
from kdbench.contract.synthetic.modules import fresh, warmed
from kdbench.contract.synthetic.problem import PHASES, Problem, Run

CLASSES = (2, 10, 100, 1000)
SMALL = 1e-5  # relative error that a central difference in fp64 stays below


def check_terms(subject: Subject) -> None:
    """Finite 0-dim terms under the same names for 2..1000 classes, min_batch and 7 samples, first to last epoch."""
    method = subject.method
    names: set[str] | None = None
    for classes in CLASSES:
        if classes < method.min_classes:
            continue
        for count in sorted({method.min_batch, 7}):
            problem = problems.make(method, count, classes)
            modules = fresh(problem)
            for epoch in PHASES if classes < 1000 else PHASES[1:2]:
                run = problem.run(modules, epoch)
                where = f"with C={classes}, B={count}, epoch {epoch:g}"
                finite(run.terms, where)
                wrong = [name for name, value in run.terms.items() if value.dtype != problem.dtype]
                require(
                    not wrong, f"{where} {', '.join(wrong)} is {run.terms[wrong[0]].dtype}" if wrong else ""
                )
                names = set(run.returned) if names is None else names
                require(
                    set(run.returned) == names,
                    f"{where} it returns {sorted(run.returned)}, else {sorted(names)}",
                )
    problem = problems.make(method, max(7, method.min_batch))
    same = (problem.context.train_targets == problem.target[0]).nonzero().flatten()
    alike = problem.rows(torch.arange(min(len(same), len(problem.target))))
    object.__setattr__(alike, "index", same[: len(alike.target)])
    object.__setattr__(alike, "target", problem.context.train_targets[alike.index])
    finite(alike.run(fresh(problem)).terms, "with a batch of one class")


def finite(terms: dict[str, Tensor], where: str) -> None:
    """Raise unless all values are finite."""
    for name, value in terms.items():
        require(bool(torch.isfinite(value)), f"{where} the term {name!r} is {float(value.detach())}")


def check_layout(subject: Subject) -> None:
    """Non-contiguous logits and channels_last maps give the same values."""
    problem = problems.make(subject.method, max(7, subject.method.min_batch))

    def turned(side: Side) -> Side:
        return side.changed(
            lambda m: m.contiguous(memory_format=torch.channels_last), lambda s: s.T.contiguous().T
        )

    modules = fresh(problem)
    plain = problem.run(copy.deepcopy(modules)).terms
    other = problem.sides(lambda role, side: turned(side)).run(copy.deepcopy(modules)).terms
    gap, name = difference(plain, other)
    require(gap < 1e-4, f"{name!r} depends on the memory layout (relative difference {gap:.1e})")


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of two sets of terms, and whose it is."""
    worst = (0.0, next(iter(a)))
    for name in a:
        x, y = float(a[name].detach()), float(b[name].detach())
        gap = abs(x - y) / max(abs(x), abs(y), 1e-8)
        worst = max(worst, (gap if gap == gap else float("inf"), name))
    return worst


def gradients(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """d value / d leaf for each leaf, 0 where there is none; the graph can be used again."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    slopes = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, slopes, strict=True)]


def check_gradient(subject: Subject) -> None:
    """The gradient reaches every student view and, in some phase, every parameter of the modules."""
    method = subject.method
    problem = problems.make(method, max(16, method.min_batch), dtype=torch.float64)
    modules = fresh(problem)
    reached = dict.fromkeys(method.needs.views, False)
    parameters = {name: 0.0 for name, _ in modules.named_parameters()}
    for state in (modules, warmed(problem, modules)):
        for epoch in PHASES:
            run = problem.run(state, epoch)
            require(run.total.requires_grad, "the loss does not depend on the student")
            run.back_propagate()
            for view in reached:
                reached[view] |= any(_size(leaf.grad) > 0 for leaf in problem.student.leaves(view))
            for name, parameter in state.named_parameters():
                parameters[name] = max(parameters[name], _size(parameter.grad))
            for leaf in [*problem.leaves, *state.parameters()]:
                leaf.grad = None
    lost = [view for view, has in reached.items() if not has]
    require(not lost, f"no gradient reaches the student on the view {', '.join(map(repr, lost))}")
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules.modules())
    # a bias in front of a BatchNorm has gradient 0 but for rounding
    dead = [n for n, size in parameters.items() if size <= (0 if normed and n.endswith("bias") else 1e-12)]
    require(not dead, f"no gradient ever reaches the parameter {', '.join(dead)}: make it a buffer or use it")


def _size(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.abs().max())


def check_teacher_gradient(subject: Subject) -> None:
    """Nothing of the teacher asks for or gets a gradient."""
    problem = problems.make(subject.method, max(7, subject.method.min_batch))
    modules = fresh(problem)
    if problem.teacher is None:
        return
    run = problem.run(modules)
    run.back_propagate()
    head = problem.teacher.head
    for what, tensor in [*_tensors(run.teacher or {}), *head.named_parameters()]:
        require(
            not tensor.requires_grad and tensor.grad is None,
            f"the teacher's {what} requires a gradient",
        )
    owned = {id(p) for p in head.parameters()} & {id(p) for p in modules.parameters()}
    require(not owned, "the modules hold the teacher's head as parameters: it would be trained")


def _tensors(outputs: dict) -> Iterator[tuple[str, Tensor]]:
    for view, out in outputs.items():
        for what in ("logits", "embedding", "features"):
            if (tensor := getattr(out, what)) is not None:
                yield f"{what} ({view})", tensor
        for what in ("stages", "preact"):
            yield from ((f"{what} ({view})", tensor) for tensor in getattr(out, what) or ())


def check_pure(subject: Subject) -> None:
    """loss changes neither its inputs nor the modules nor the global random state; a second call agrees bit for bit."""
    problem = problems.make(subject.method, max(7, subject.method.min_batch))
    modules = fresh(problem)
    before, python, numpies = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore
    state = _state(modules)
    versions: list[tuple[str, Tensor, int]] = []

    def note(role: str, views):
        versions.extend((f"{role}'s {what}", t, t._version) for what, t in _tensors(views._outputs))
        return views

    object.__setattr__(problem, "watch", note)
    heads = [problem.student.head, *([problem.teacher.head] if problem.teacher else [])]
    for what, tensor in [("target", problem.target), ("index", problem.index)] + [
        (f"a head's {name}", p) for head in heads for name, p in head.named_parameters()
    ]:
        versions.append((what, tensor, tensor._version))
    first = problem.run(modules)
    for epoch in PHASES:
        problem.run(copy.deepcopy(modules), epoch)
    for what, tensor, version in versions:
        require(tensor._version == version, f"loss writes into the {what}")
    changed = [name for name, value in _state(modules).items() if not torch.equal(value, state[name])]
    require(not changed, f"loss changes {', '.join(changed)} of the modules: that is for `update`")
    untouched = torch.equal(before, torch.get_rng_state()) and python == random.getstate()
    untouched &= numpies == np.random.get_state()[1].tolist()  # type: ignore
    require(untouched, "loss draws from a global random generator: draw from batch.generator")
    second = problem.run(modules)
    for name, value in first.returned.items():
        require(torch.equal(value, second.returned[name]), f"two equal calls differ in {name!r}")


def _state(modules: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers but the running statistics of BatchNorm, which may change."""
    norms = tuple(
        name for name, m in modules.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    )
    statistics = {
        f"{n}.{b}".lstrip(".") for n in norms for b in ("running_mean", "running_var", "num_batches_tracked")
    }
    named = [*modules.named_parameters(), *modules.named_buffers()]
    return {name: value.detach().clone() for name, value in named if name not in statistics}


def check_extremes(subject: Subject) -> None:
    """Value and gradient stay finite at logits x 10^4, one-hot and uniform models, dead channels and twin samples."""
    for method in variants(subject.method):
        for classes in {10, 2 if method == subject.method else 10}:
            if classes < method.min_classes:
                continue
            problem = problems.make(method, max(7, method.min_batch), classes)
            modules = fresh(problem)
            for what, case in extremes(problem):
                finite_run(case, copy.deepcopy(modules), f"with {what}" + _switched(method, subject))


def extremes(problem: Problem) -> Iterator[tuple[str, Problem]]:
    """Inputs that break formulas outside log space."""
    target = problem.target

    def scaled(side: Side) -> Side:
        return side.changed(scores=lambda s: 1e4 * s, head=lambda w, b: (1e4 * w, 1e4 * b))

    def hot(right: bool) -> Callable[[Side], Side]:
        def one(scores: Tensor) -> Tensor:
            place = target if right else (target + 1) % scores.shape[1]
            return torch.zeros_like(scores).scatter(1, place[:, None], 1000.0)

        def bias(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros_like(weight), 1000.0 * (torch.arange(len(bias)) == int(target[0])).to(bias)

        return lambda side: side.changed(scores=one, head=bias)

    def flat(side: Side) -> Side:
        return side.changed(scores=torch.zeros_like, head=lambda w, b: (0 * w, 0 * b))

    def dead(side: Side) -> Side:
        return side.changed(lambda m: torch.where(torch.arange(m.shape[1])[:, None, None] == 0, -1.0, m))

    for what, change, roles in (
        ("logits x 10^4", scaled, ("student", "teacher")),
        ("student logits x 10^4", scaled, ("student",)),
        ("a one-hot teacher", hot(True), ("teacher",)),
        ("a wrong one-hot teacher", hot(False), ("teacher",)),
        ("one-hot models", hot(True), ("student", "teacher")),
        ("a uniform teacher", flat, ("teacher",)),
        ("uniform models", flat, ("student", "teacher")),
        ("a channel that is 0", dead, ("student", "teacher")),
    ):
        yield what, problem.sides(lambda role, side: change(side) if role in roles else side)  # noqa: B023
    yield "equal models", problem.matched() if problem.offer == "equal shapes" else problem
    if len(target) > 1:
        rows = torch.arange(len(target))
        rows[1] = 0
        yield "two equal samples", problem.rows(rows)


def finite_run(problem: Problem, modules: nn.Module, where: str) -> None:
    """Require finite terms and gradients of one step; ``where`` begins the sentence that says they are not."""
    run: Run = problem.run(modules)
    finite(run.terms, where)
    run.back_propagate()
    leaves = [("the student", leaf) for leaf in problem.leaves]
    for what, leaf in [*leaves, *modules.named_parameters(), *problem.student.head.named_parameters()]:
        if leaf.grad is not None:
            require(bool(torch.isfinite(leaf.grad).all()), f"{where} the gradient of {what} is not finite")


def _switched(method, subject: Subject) -> str:
    changed = {k: v for k, v in method.params.items() if v != subject.method.params.get(k)}
    return "".join(f", {key}={value}" for key, value in changed.items())


def check_gradcheck(subject: Subject) -> None:
    """In fp64 the gradient is that of the value, unless partial_gradient says otherwise, and then it is not."""
    method = subject.method
    gaps = [_slope_gap(method, seed) for seed in (0, 1, 2)]
    gap = sorted(gaps)[1]  # one of three may hit a kink
    if method.partial_gradient:
        require(max(gaps) > SMALL, "partial_gradient is declared, but the gradient is that of the value")
    else:
        require(
            gap <= SMALL,
            f"the gradient differs from the value's slope by {gap:.1e} of it: something is detached or scaled; "
            "if that is the method's idea, declare partial_gradient",
        )


def _slope_gap(method, seed: int) -> float:
    """|central difference - analytic slope| along random directions of all that learns, relative."""
    problem = problems.make(method, max(4, method.min_batch), max(5, method.min_classes), seed, torch.float64)
    modules = warmed(problem)
    tensors = [*problem.leaves, *modules.parameters()]
    if method.needs.classifier:
        tensors += problem.student.head.parameters()
    slopes = torch.autograd.grad(problem.run(modules).total, tensors, allow_unused=True)
    used = [(t, g) for t, g in zip(tensors, slopes, strict=True) if g is not None]
    g = torch.Generator().manual_seed(seed)
    step, worst = 1e-6, 0.0
    for _ in range(2):
        way = [torch.randn(t.shape, generator=g, dtype=torch.float64) for t, _ in used]
        analytic = sum(float((slope * w).sum()) for (_, slope), w in zip(used, way, strict=True))
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for (tensor, _), w in zip(used, way, strict=True):
                    tensor += sign * step * w
                ends.append(float(problem.run(modules).total))
        with torch.no_grad():
            for (tensor, _), w in zip(used, way, strict=True):
                tensor += step * w
        numeric = (ends[0] - ends[1]) / (2 * step)
        length = sum(float(slope.square().sum()) for _, slope in used) ** 0.5
        worst = max(worst, abs(numeric - analytic) / (abs(numeric) + abs(analytic) + 0.1 * length))
    return worst
