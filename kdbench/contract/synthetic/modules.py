"""The modules that a method builds: at the start, and after a few steps."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kdbench.contract.synthetic.models import Side, make_side
from kdbench.contract.synthetic.problem import Problem
from kdbench.method import Batch, Views, overrides


class TeacherBatches:
    """The synthetic train set with the teacher's outputs, for `Method.prepare`."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.needs = problem, problem.method.needs.of("teacher")

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        yield from self._pass(torch.arange(self.problem.context.train_size), 1000, self.needs.views[:1])

    def epoch(self, number: int) -> Iterator[tuple[Batch, Views]]:
        """Yield all declared views, others for each ``number``."""
        order = torch.randperm(
            self.problem.context.train_size, generator=torch.Generator().manual_seed(number)
        )
        yield from self._pass(order, 2000 + 100 * number, self.needs.views)

    def _pass(self, order: Tensor, seed: int, views: tuple[str, ...]) -> Iterator[tuple[Batch, Views]]:
        problem, needs = self.problem, self.needs
        assert problem.teacher is not None
        context = problem.context
        channels = tuple(m.shape[1] for m in problem.teacher.maps[needs.views[0]])
        for number, chosen in enumerate(order.split(64)):
            target = context.train_targets[chosen]
            drawn = make_side(
                "teacher",
                channels,
                needs,
                target,
                context.num_classes,
                seed + number,
                problem.dtype,
                problem.tied,
            )
            side = Side(drawn.maps, drawn.scores, problem.teacher.head)
            batch = Batch(
                target=target,
                epoch=0.0,
                last=bool(chosen[-1] == order[-1]),
                progress=torch.tensor(0.0),
                generator=torch.Generator(),
                sample_index=chosen if needs.index else None,
            )
            with torch.no_grad():
                outputs = {view: shown for view, shown in side.outputs(needs).items() if view in views}
            yield problem.watch_batch(batch), problem.watch("teacher", Views(outputs, needs))


def fresh(problem: Problem) -> nn.Module:
    """Modules after `build` and `prepare` on the problem, always from the same random state."""
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
    """``modules`` (None: fresh ones) after three steps of normalised gradient descent on other samples."""
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
                        parameter.sub_(0.01 * slope / slope.abs().max().clamp(min=1e-12))
    return modules


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """torch's global generator at a fixed state inside, as it was outside."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def states(problem: Problem) -> Iterator[nn.Module]:
    """The modules at the start and after some steps."""
    modules = fresh(problem)
    yield modules
    yield warmed(problem, modules)
