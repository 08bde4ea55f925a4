"""What a method uses of what it declares: needs, weights, the search space, options, the modules in predict."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from typing import Any

import torch
from torch import Tensor

from kdbench import registry
from kdbench.contract.core import CheckFailed, Subject, require
from kdbench.contract.loss_checks import finite_run, gradients
from kdbench.contract.static_checks import variants
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.modules import fresh, warmed
from kdbench.contract.synthetic.problem import MIDDLE, PHASES
from kdbench.errors import KdbenchError
from kdbench.method import TASK, Batch, Method, Views, field_types, momentum_offset, overrides, refusal
from kdbench.utils.needs import Needs, Role
from kdbench.utils.search_space import Choice, Range


def check_needs(subject: Subject) -> None:
    """All that is read is declared in needs, and all that is declared is read."""
    read: set[str] = set()
    for method in variants(subject.method):
        problem = problems.make(method, max(7, method.min_batch))
        spied = dataclasses.replace(
            problem,
            watch=lambda role, views: Spy(views._outputs, views._needs, role, read),
            watch_batch=lambda batch: SpyBatch(
                **{f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
            ).on(read),
        )
        modules = fresh(spied)
        for epoch in PHASES:
            run = spied.run(modules, epoch, last=True)
            spied.update(run, modules)
        if overrides(method, "predict"):
            own = method.needs.of("student")
            method.predict(Spy(problem.student.outputs(own), own, "student", read), modules)
    needs = functools.reduce(operator.or_, (method.needs for method in variants(subject.method)))
    flags = [f.name for f in dataclasses.fields(Needs) if f.name not in ("views", "teacher", "preact")]
    unread = [flag for flag in flags if getattr(needs, flag) and flag not in read]
    roles: tuple[Role, ...] = ("student", "teacher")
    unread += [f"the {r}'s preact" for r in roles if needs.of(r).preact and f"{r}'s preact" not in read]
    unread += [f"the view {view!r}" for view in needs.views if f"student {view}" not in read]
    unread += ["teacher"] if needs.teacher and not any(what.startswith("teacher ") for what in read) else []
    require(not unread, f"needs declares what is never read: {', '.join(unread)}")


class Spy(Views):
    """Notes what is read: a need's name and "<role> <view>"."""

    def __init__(
        self, outputs: Any, needs: Needs, role: str, read: set[str], view: str | None = None
    ) -> None:
        super().__init__(outputs, needs, view)
        self._role, self._seen = role, read

    def __getitem__(self, view: str) -> Spy:
        chosen = super().__getitem__(view)
        return Spy(chosen._outputs, self._needs, self._role, self._seen, chosen._view)

    def _read(self, field: str, need: str) -> Any:
        value = super()._read(field, need)
        self._seen |= {need, f"{self._role}'s {need}", f"{self._role} {self._view}"}
        return value

    @property
    def logits(self) -> Tensor:
        """The logits, whose reading is recorded."""
        self._seen.add(f"{self._role} {self._view}")
        return super().logits


@dataclasses.dataclass(frozen=True)
class SpyBatch(Batch):
    """Notes that the index is read."""

    def on(self, read: set[str]) -> SpyBatch:
        """Record what is read in ``read``. Returns the batch itself."""
        object.__setattr__(self, "_seen", read)
        return self

    @property
    def index(self) -> Tensor:
        """The index, whose reading is recorded."""
        value = super().index
        self._seen.add("index")  # type: ignore[attr-defined]
        return value


def check_weights(subject: Subject) -> None:
    """Each field of weights at 0 switches off exactly its terms."""
    method = subject.method
    problem = problems.make(method, max(8, method.min_batch), dtype=torch.float64)
    modules = warmed(problem)
    full = {epoch: problem.run(copy.deepcopy(modules), epoch).detached for epoch in PHASES}
    for field, names in method.weights.items():
        named = (names,) if isinstance(names, str) else tuple(names)
        strange = [name for name in named if name not in full[MIDDLE]]
        require(
            not strange,
            f"weights[{field!r}] names {', '.join(strange)}; the terms are {', '.join(full[MIDDLE])}",
        )
        off = dataclasses.replace(problem, method=registry.create(method.name, {**_values(method), field: 0}))
        for epoch, terms in full.items():
            left = off.run(copy.deepcopy(modules), epoch).terms
            for name, value in left.items():
                if name in named:
                    slopes = gradients(value, off.leaves)
                    dead = float(value.detach()) == 0 and not any(bool(s.any()) for s in slopes)
                    require(dead, f"{field}=0 leaves {name!r} at {float(value.detach()):.3g}")
                else:
                    require(torch.equal(value, terms[name]), f"{field}=0 changes {name!r} too")
        for name in named:
            awake = any(float(terms[name]) != 0 for terms in full.values())
            require(awake, f"{name!r} is 0 in every phase by default, so {field} switches nothing off")


def _values(method: Method) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def check_space(subject: Subject) -> None:
    """The search space names hyperparameters, holds each default, and trains at each of its ends."""
    method, kinds = subject.method, field_types(subject.cls)
    for key, values in method.space.items():
        require(
            isinstance(values, Range | Choice), f"space[{key!r}] must be a log_range, linear_range or choice"
        )
        require(key in kinds, f"space names {key!r}; the parameters are {', '.join(kinds) or 'none'}")
        default = getattr(method, key)
        require(default in values, f"space[{key!r}] is {values}, but the default is {default}")
        for value in values.corners:
            try:
                changed = registry.create(method.name, {**_values(method), key: value})
            except KdbenchError as error:
                raise CheckFailed(f"space[{key!r}] holds a value that is refused: {error}") from None
            problem = problems.make(changed, max(8, method.min_batch))
            finite_run(problem, fresh(problem), f"at {key}={value}")


def check_options(subject: Subject) -> None:
    """An option that the method takes has something to change; momentum offsets and the leading term name terms."""
    method = subject.method
    problem = problems.make(method, max(8, method.min_batch), dtype=torch.float64)
    modules = fresh(problem)
    terms = problem.run(copy.deepcopy(modules)).detached
    for each in variants(method):
        leading = each.leading_term
        require(
            leading is None or leading in terms,
            f"leading_term is {leading!r}; the terms are {', '.join(terms)}",
        )
    if method.momentum_offsets:
        named = [*method.momentum_offsets, method.decayed]
        strange = [name for name in named if name not in terms]
        require(not strange, f"momenta name {', '.join(strange)}; the terms are {', '.join(terms)}")
        offsets = {momentum_offset(method, name) for name in terms}
        require(len(offsets) > 1, "momentum_offsets gives all terms the same momentum")
    elif refusal(method, "momentum_gap") is None:
        require(
            {TASK} < terms.keys(), f"weights names terms beside {TASK!r}, but it returns {', '.join(terms)}"
        )
    if refusal(method, "teacher_fix") is None:
        fixes = ("swap", "sort")
        fixed = [dataclasses.replace(method, teacher_fix=fix) for fix in fixes]  # type: ignore[arg-type]
        runs = [dataclasses.replace(problem, method=each).run(copy.deepcopy(modules)) for each in fixed]
        changed = any(not torch.equal(run.detached[name], terms[name]) for run in runs for name in terms)
        require(changed, "the teacher's logits are not read: set the family that the method belongs to")


def check_predict(subject: Subject) -> None:
    """predict gives [B, C], image by image, and uses the modules exactly where keeps_modules says so."""
    method = subject.method
    if not overrides(method, "predict"):
        require(not method.keeps_modules, "keeps_modules is declared without a predict of its own")
        return
    problem = problems.make(method, 7)
    modules = fresh(problem).eval()
    needs = method.needs.of("student")
    every = torch.arange(7)

    def predicted(rows: Tensor) -> Tensor:
        outputs = problem.rows(rows).student.outputs(needs)
        return method.predict(Views({needs.views[0]: outputs[needs.views[0]]}, needs), modules)

    with torch.no_grad():
        logits = predicted(every)
        shape = (7, problem.context.num_classes)
        require(tuple(logits.shape) == shape, f"predict gives {tuple(logits.shape)} instead of {shape}")
        alone = torch.cat([predicted(row) for row in every.split(1)])
        require(
            torch.allclose(alone, logits, rtol=1e-4, atol=1e-5),
            "predict of an image depends on the others of its batch",
        )
        for kept in [*modules.parameters(), *modules.buffers()]:
            if kept.is_floating_point():
                kept.add_(1.0)
        used = not torch.equal(logits, predicted(every))
    require(
        used or not method.keeps_modules, "keeps_modules is declared, but predict does not use the modules"
    )
    require(method.keeps_modules or not used, "predict uses the modules: declare keeps_modules")
