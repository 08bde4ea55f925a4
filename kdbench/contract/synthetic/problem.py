"""Synthetic problems: a batch, the outputs of a synthetic student and teacher, and the facts of both models.

B samples, C classes, N train samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdbench.contract.synthetic.models import OFFERS, Side, copy_of, generator, make_facts, make_side
from kdbench.method import Batch, Context, Method, Outputs, Terms, Views
from kdbench.train.step import Call, Shown, backward, call_loss, call_update, summed

PHASES = (1.0, 120.0, 240.0)  # values of batch.epoch: first, middle and last of a reference schedule
MIDDLE = 120.0


class NoOffer(Exception):
    """The method skips every pair of models that it is offered."""


@dataclass(frozen=True, eq=False)
class Run:
    """One call of ``loss``, and the teacher's outputs that it was shown."""

    call: Call
    teacher: dict[str, Outputs] | None

    @property
    def returned(self) -> Terms:
        """All terms, the private ones among them."""
        return self.call.returned

    @property
    def terms(self) -> Terms:
        """The terms that are summed."""
        return self.call.terms

    @property
    def detached(self) -> Terms:
        """The summed terms without their graph."""
        return summed([self.call]).detached().terms

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return summed([self.call]).total

    @property
    def drew(self) -> bool:
        """Whether the method drew random numbers."""
        generator = self.call.batch.generator
        return not torch.equal(generator.get_state(), _draws(generator.initial_seed()).get_state())

    def back_propagate(self) -> None:
        """Add the gradient of the total to the ``grad`` of all that it depends on."""
        backward([self.call])


@dataclass(frozen=True)
class Problem:
    """A batch and both models; ``watch`` sees what the method reads."""

    method: Method
    context: Context
    student: Side
    teacher: Side | None
    target: Tensor
    index: Tensor
    dtype: torch.dtype
    offer: str
    tied: bool
    seed: int = 7  # of the batch's generator
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
        return self.watch_batch(Batch(self.target, epoch, last, progress, _draws(self.seed), index))

    def run(self, modules: nn.Module, epoch: float = MIDDLE, last: bool = False) -> Run:
        """One call of the method's loss. Raises KdbenchError when it returns something else than named scalars."""
        batch = self.batch(epoch, last)
        own, other = self.method.needs.of("student"), self.method.needs.of("teacher")
        student = self.student.outputs(own)
        teacher = self.teacher.outputs(other) if self.teacher is not None else None
        shown = self._shown(student, teacher)
        return Run(call_loss(self.method, batch, *shown, modules), teacher)

    def update(self, run: Run, modules: nn.Module) -> None:
        """Call the method's ``update``, where it has one, after ``run``."""
        call_update(self.method, [run.call], modules)

    def _shown(self, student: dict[str, Outputs], teacher: dict[str, Outputs] | None) -> Shown:
        """Both models' outputs as the method sees them."""
        own, other = self.method.needs.of("student"), self.method.needs.of("teacher")
        taught = self.watch("teacher", Views(teacher, other)) if teacher is not None else None
        return self.watch("student", Views(student, own)), taught

    def sides(self, change: Callable[[str, Side], Side]) -> Problem:
        """The problem with both models replaced by ``change(role, side)``."""
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
        """The problem of the samples ``rows``, in that order."""
        picked = self.sides(lambda role, side: side.changed(lambda m: m[rows], lambda s: s[rows]))
        return dataclasses.replace(picked, target=self.target[rows], index=self.index[rows])

    def joined(self, other: Problem) -> Problem:
        """The problem of the samples of both, one after the other, under the heads of this one."""

        def join(role: str, side: Side) -> Side:
            more = other.student if role == "student" else other.teacher
            assert more is not None
            maps = iter([m for stages in more.maps.values() for m in stages])
            scores = iter([] if more.scores is None else list(more.scores.values()))
            return side.changed(lambda m: torch.cat([m, next(maps)]), lambda s: torch.cat([s, next(scores)]))

        target, index = torch.cat([self.target, other.target]), torch.cat([self.index, other.index])
        return dataclasses.replace(self.sides(join), target=target, index=index)

    def matched(self) -> Problem:
        """The problem with a teacher whose outputs are the student's."""

        def match(role: str, side: Side) -> Side:
            return side if role == "student" else copy_of(self.student)

        return self.sides(match)

    def again(self, seed: int) -> Problem:
        """The problem with other samples, drawn from ``seed``, for the same models."""
        problem = make(
            self.method, len(self.target), self.context.num_classes, seed, self.dtype, self.offer, self.tied
        )
        return dataclasses.replace(problem, watch=self.watch, watch_batch=self.watch_batch)


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
    index = torch.randperm(size, generator=generator("index", seed))[:count]
    channels = dict(zip(("student", "teacher"), OFFERS[offer], strict=True))
    sides = {
        role: make_side(role, channels[role], method.needs, targets[index], classes, seed, dtype, tied)
        for role in channels
    }
    facts = {role: make_facts(channels[role], sides[role].head, role, dtype) for role in channels}
    taught = method.needs.teacher
    context = Context(
        num_classes=classes,
        train_size=size,
        train_targets=targets,
        batch_size=max(count, 64),  # what is here is a last, smaller batch
        epochs=8,  # of a short run: what `prepare` repeats by their number stays cheap
        student=facts["student"],
        teacher=facts["teacher"] if taught else None,
    )
    teacher = sides["teacher"] if taught else None
    return Problem(method, context, sides["student"], teacher, targets[index], index, dtype, offer, tied)


def _draws(seed: int) -> torch.Generator:
    """A batch's generator as it is handed out."""
    return torch.Generator().manual_seed(seed)
