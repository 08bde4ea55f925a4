"""Synthetic problems: a batch, the outputs of a made-up student and teacher, and the facts of both models.

B samples, C classes, D channels of the last stage, N train samples. A model here is its maps before their last ReLU
(leaves of the graph) and a linear head: stages = relu(maps), features = last stage, embedding = its mean over space,
logits = head(embedding). A method that does not call the head gets logits that are leaves of their own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import (
    Batch,
    Context,
    Method,
    ModelFacts,
    Needs,
    Outputs,
    StageFacts,
    Terms,
    Views,
    overrides,
)
from kdbench.trainee import check_terms

SIZES = (8, 4, 2)  # pixels a side of the three stages
# Offered in this order until the method does not skip: channels of the student's and of the teacher's stages.
OFFERS = {"a wider teacher": ((4, 6, 8), (6, 8, 12)), "equal shapes": ((4, 6, 8), (4, 6, 8))}
PHASES = (1.0, 120.0, 240.0)  # values of batch.epoch: first, middle and last of a reference schedule
MIDDLE = 120.0


class NoOffer(Exception):
    """The method skips every pair of models that it is offered."""


class Head(nn.Module):
    """logits = weight embedding + bias."""

    def __init__(self, weight: Tensor, bias: Tensor, live: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=live)
        self.bias = nn.Parameter(bias, requires_grad=live)

    def classify(self, embedding: Tensor) -> Tensor:
        return nn.functional.linear(embedding, self.weight, self.bias)


@dataclass(frozen=True)
class Side:
    """One model on every view. ``scores``: its logits where they do not come from the head."""

    maps: dict[str, tuple[Tensor, ...]]
    scores: dict[str, Tensor] | None
    head: Head

    def outputs(self, needs: Needs) -> dict[str, Outputs]:
        """View -> what ``needs`` asks for."""
        return {view: self._on(view, needs) for view in needs.views}

    def _on(self, view: str, needs: Needs) -> Outputs:
        stages = tuple(m.relu() for m in self.maps[view])
        embedding = stages[-1].mean((2, 3))
        return Outputs(
            logits=self.head.classify(embedding) if self.scores is None else self.scores[view],
            embedding=embedding if needs.embedding else None,
            features=stages[-1] if needs.features else None,
            stages=stages if needs.stages else None,
            preact=self.maps[view] if needs.preact else None,
            classify=self.head.classify if needs.classifier else None,
        )

    def leaves(self, view: str) -> list[Tensor]:
        """The tensors that this view's outputs are computed from."""
        return [*self.maps[view], *([] if self.scores is None else [self.scores[view]])]

    def changed(
        self,
        maps: Callable[[Tensor], Tensor] = lambda m: m,
        scores: Callable[[Tensor], Tensor] = lambda s: s,
        head: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda w, b: (w, b),
    ) -> Side:
        """The same model with every map, every score and the head (weight, bias) put through a function."""
        with torch.no_grad():
            live = self.head.weight.requires_grad

            def leaf(value: Tensor) -> Tensor:
                return value.detach().clone(memory_format=torch.preserve_format).requires_grad_(live)

            weight, bias = head(self.head.weight, self.head.bias)
            return Side(
                {view: tuple(leaf(maps(m)) for m in found) for view, found in self.maps.items()},
                None if self.scores is None else {v: leaf(scores(s)) for v, s in self.scores.items()},
                Head(weight.detach().clone(), bias.detach().clone(), live),
            )


@dataclass
class Run:
    """One call of ``loss``: what it returned and what it was given."""

    returned: Terms
    terms: Terms  # without those that begin with _
    batch: Batch
    student: dict[str, Outputs]
    teacher: dict[str, Outputs] | None

    @property
    def drew(self) -> bool:
        """Whether the method drew random numbers."""
        return not torch.equal(self.batch.generator.get_state(), _draws().get_state())

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Problem:
    """A batch and both models; ``seen`` collects what the method reads (see `kdbench.checks.tags.check_needs`)."""

    method: Method
    context: Context
    student: Side
    teacher: Side | None
    target: Tensor
    index: Tensor
    dtype: torch.dtype
    offer: str
    tied: bool
    watch: Callable[[str, Views], Views] = field(default=lambda role, views: views)
    watch_batch: Callable[[Batch], Batch] = field(default=lambda batch: batch)

    @property
    def leaves(self) -> list[Tensor]:
        """What the student's outputs come from, on every view that the method sees."""
        return [leaf for view in self.method.needs.views for leaf in self.student.leaves(view)]

    def batch(self, epoch: float = MIDDLE, last: bool = False) -> Batch:
        """The step's facts; its generator starts at the same state each time."""
        index = self.index if self.method.needs.index else None
        progress = torch.tensor((epoch - 1) / 240)
        made = Batch(self.target, epoch, last, progress, _draws(), index)
        return self.watch_batch(made)

    def run(self, modules: nn.Module, epoch: float = MIDDLE, last: bool = False) -> Run:
        """One call of the method's loss. Raises KdbenchError for what is no dict of scalars."""
        needs, batch = self.method.needs, self.batch(epoch, last)
        student = self.student.outputs(needs)
        teacher = self.teacher.outputs(needs) if self.teacher is not None else None
        views = self.watch("teacher", Views(teacher, needs)) if teacher is not None else None
        returned = self.method.loss(batch, self.watch("student", Views(student, needs)), views, modules)
        terms = check_terms(self.method.name, returned)
        return Run(returned, terms, batch, student, teacher)

    def update(self, run: Run, modules: nn.Module) -> None:
        """The method's update after ``run``."""
        needs = self.method.needs
        views = self.watch("teacher", Views(run.teacher, needs)) if run.teacher is not None else None
        student = self.watch("student", Views(run.student, needs))
        with torch.no_grad():
            detached = {name: value.detach() for name, value in run.returned.items()}
            self.method.update(run.batch, student, views, modules, detached)

    def sides(self, change: Callable[[str, Side], Side]) -> Problem:
        """Both models put through ``change(role, side)``."""
        student = change("student", self.student)
        teacher = change("teacher", self.teacher) if self.teacher is not None else None
        context = dataclasses.replace(
            self.context,
            student=dataclasses.replace(self.context.student, classify=student.head.classify),
            teacher=dataclasses.replace(self.context.teacher, classify=teacher.head.classify)
            if teacher is not None and self.context.teacher is not None
            else None,
        )
        return dataclasses.replace(self, student=student, teacher=teacher, context=context)

    def rows(self, rows: Tensor) -> Problem:
        """The samples ``rows``, in that order."""
        picked = self.sides(lambda role, side: side.changed(lambda m: m[rows], lambda s: s[rows]))
        return dataclasses.replace(picked, target=self.target[rows], index=self.index[rows])

    def joined(self, other: Problem) -> Problem:
        """The samples of both, one after the other, under this one's heads."""

        def join(role: str, side: Side) -> Side:
            more = other.student if role == "student" else other.teacher
            assert more is not None
            maps = iter([m for found in more.maps.values() for m in found])
            scores = iter([] if more.scores is None else list(more.scores.values()))
            return side.changed(lambda m: torch.cat([m, next(maps)]), lambda s: torch.cat([s, next(scores)]))

        target, index = torch.cat([self.target, other.target]), torch.cat([self.index, other.index])
        return dataclasses.replace(self.sides(join), target=target, index=index)

    def matched(self) -> Problem:
        """The teacher says what the student says."""

        def match(role: str, side: Side) -> Side:
            return side if role == "student" else copy_of(self.student)

        return self.sides(match)

    def again(self, seed: int) -> Problem:
        """Other samples for the same models."""
        made = make(self.method, len(self.target), self.context.num_classes, seed, self.dtype, self.offer, self.tied)
        return dataclasses.replace(made, watch=self.watch, watch_batch=self.watch_batch)


def copy_of(student: Side) -> Side:
    """A teacher with the student's values."""
    head = Head(student.head.weight.detach().clone(), student.head.bias.detach().clone(), live=False)
    maps = {view: tuple(m.detach().clone() for m in found) for view, found in student.maps.items()}
    scores = None if student.scores is None else {v: s.detach().clone() for v, s in student.scores.items()}
    return Side(maps, scores, head)


def make(
    method: Method,
    count: int = 7,
    classes: int = 10,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    offer: str | None = None,
    tied: bool | None = None,
) -> Problem:
    """A problem of ``count`` samples that ``method`` can be tried on. The same arguments give the same tensors.

    offer: one of `OFFERS`; None takes the first that the method does not skip and raises `NoOffer` if there is none.
    tied: the logits come from the head; None: only where the method may call it.
    """
    if offer is None:
        reasons = []
        for name in OFFERS:
            problem = make(method, count, classes, seed, dtype, name, tied)
            reason = method.skip(problem.context)
            if reason is None:
                return problem
            reasons.append(f"{name}: {reason}")
        raise NoOffer(f"it skips every pair it is offered ({'; '.join(reasons)})")
    tied = method.needs.classifier if tied is None else tied
    size = max(64, 2 * classes)
    targets = torch.arange(size) % classes
    index = torch.randperm(size, generator=_generator("index", seed))[:count]
    channels = dict(zip(("student", "teacher"), OFFERS[offer], strict=True))
    sides = {role: _side(role, channels[role], method.needs, targets[index], classes, seed, dtype, tied) for role in channels}
    facts = {role: _facts(channels[role], sides[role].head, role, dtype) for role in channels}
    taught = method.needs.teacher
    context = Context(size, size, targets, count, 240, facts["student"], facts["teacher"] if taught else None)
    context = dataclasses.replace(context, num_classes=classes)
    teacher = sides["teacher"] if taught else None
    return Problem(method, context, sides["student"], teacher, targets[index], index, dtype, offer, tied)


def _draws() -> torch.Generator:
    """A batch's generator as it is handed out."""
    return torch.Generator().manual_seed(7)


def _generator(purpose: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, purpose)) * 1000 + seed)


def _side(
    role: str, channels: tuple[int, ...], needs: Needs, target: Tensor, classes: int, seed: int, dtype: Any, tied: bool
) -> Side:
    """Random maps; the head is the same for every seed; of the teacher's own logits every other row is confident."""
    live = role == "student"
    fixed = _generator(f"head {role}", 0)
    weight = 1.5 * torch.randn(classes, channels[-1], generator=fixed, dtype=torch.float64)
    bias = torch.randn(classes, generator=fixed, dtype=torch.float64)
    maps, scores = {}, {}
    for view in needs.views:
        g = _generator(f"{role} {view}", seed)
        drawn = [torch.randn(len(target), c, s, s, generator=g, dtype=torch.float64) for c, s in zip(channels, SIZES, strict=True)]
        maps[view] = tuple((0.3 + m).to(dtype).requires_grad_(live) for m in drawn)
        score = 2 * torch.randn(len(target), classes, generator=g, dtype=torch.float64)
        if role == "teacher":
            score[torch.arange(0, len(target), 2), target[::2]] += 8
        scores[view] = score.to(dtype).requires_grad_(live)
    return Side(maps, None if tied else scores, Head(weight.to(dtype), bias.to(dtype), live))


def _facts(channels: tuple[int, ...], head: Head, role: str, dtype: torch.dtype) -> ModelFacts:
    g = _generator(f"norms {role}", 0)
    stages = tuple(
        StageFacts(c, (s, s), (0.5 + torch.rand(c, generator=g)).to(dtype), torch.randn(c, generator=g).to(dtype))
        for c, s in zip(channels, SIZES, strict=True)
    )
    last = channels[-1]
    return ModelFacts(stages, last, (SIZES[-1],) * 2, last, head.classify, linear_head=True, has_preact=True)


class TeacherBatches:
    """The made-up train set with the teacher's outputs, for `Method.prepare`; can be iterated again."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        problem, needs = self.problem, self.problem.method.needs
        assert problem.teacher is not None
        context, view = problem.context, needs.views[0]
        channels = tuple(m.shape[1] for m in problem.teacher.maps[view])
        everything = torch.arange(context.train_size)
        for number, chosen in enumerate(everything.split(64)):
            target = context.train_targets[chosen]
            made = _side(
                "teacher", channels, needs, target, context.num_classes, 1000 + number, problem.dtype, problem.tied
            )
            side = Side(made.maps, made.scores, problem.teacher.head)
            batch = Batch(
                target=target,
                epoch=0.0,
                last=bool(chosen[-1] == everything[-1]),
                progress=torch.tensor(0.0),
                generator=torch.Generator(),
                sample_index=chosen if needs.index else None,
            )
            outputs = {view: side.outputs(needs)[view]}
            yield problem.watch_batch(batch), problem.watch("teacher", Views(outputs, needs))


def fresh(problem: Problem) -> nn.Module:
    """What `build` and `prepare` make of the problem, always from the same random state."""
    with seeded():
        modules = problem.method.build(problem.context)
        if not isinstance(modules, nn.Module):
            raise TypeError(f"build must return a torch.nn.Module, got {type(modules).__name__}")
        modules.to(problem.dtype)
        if overrides(problem.method, "prepare"):
            with torch.no_grad():
                problem.method.prepare(problem.context, TeacherBatches(problem), modules)
    return modules.train()


def warmed(problem: Problem, modules: nn.Module | None = None) -> nn.Module:
    """``modules`` (fresh ones) after three steps of training on other samples."""
    modules = fresh(problem) if modules is None else copy.deepcopy(modules)
    parameters = list(modules.parameters())
    with seeded():
        for step in range(3):
            other = problem.again(100 + step)
            run = other.run(modules, last=step == 2)
            slopes = torch.autograd.grad(run.total, parameters, allow_unused=True) if parameters else ()
            other.update(run, modules)
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    if slope is not None:
                        parameter -= 0.01 * slope / slope.abs().max().clamp(min=1e-12)
    return modules


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """torch's global generator at a fixed state inside, as it was outside."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield
