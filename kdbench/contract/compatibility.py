"""Method x pair: what runs on the pairs of a suite, determined by trying one step of each on random images.

B images, C classes.
"""

from __future__ import annotations

import contextlib
import functools
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from kdbench import models, registry, suites
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Context, Method, ModelFacts, Outputs, Views, overrides
from kdbench.models.flops import random_images
from kdbench.models.wrapper import Network
from kdbench.suites import Pair, Suite
from kdbench.suites.schema import find_view
from kdbench.train.skip_rules import skip_reason
from kdbench.train.step import backward, call_loss, call_update
from kdbench.utils.needs import Needs, Role, union
from kdbench.utils.text import fold

IMAGES = 2
LARGE = 50_000_000  # modules of more numbers are tried on shapes alone (semckd from resnet50: 850 million)
RUNS, SKIPS, FAILS = ".", "n", "X"
SUITES = ("cifar100", "cifar100-timm")


@dataclass(frozen=True)
class Outcome:
    """What came of one method on one pair; ``reason`` is empty where it runs."""

    mark: str
    reason: str = ""


Cells = Mapping[tuple[str, str], Outcome]  # by method and pair


def report(names: Sequence[str] | None, plugins: Path | None, method: str | None = None) -> tuple[str, bool]:
    """(the matrices of the suites ``names`` for one method or all, whether nothing failed)."""
    registry.load(plugins)
    methods = [registry.get(method).name] if method else registry.names()
    texts, sound = [], True
    for name in names or SUITES:
        suite = suites.load(name)
        outcomes = cells(suite, methods)
        texts.append(table(suite, methods, outcomes))
        sound &= all(cell.mark != FAILS for cell in outcomes.values())
    return "\n\n".join(texts), sound


def cells(suite: Suite, methods: Sequence[str]) -> Cells:
    """Every method on every pair of the suite: its skip, or one step with fresh networks.

    Raises KdbenchError for a suite that leaves classes or size to be measured on its data.
    """
    data = suite.dataset
    if not (data.classes and data.size):
        raise KdbenchError(f"suite {suite.name} does not say its classes and size: add them to its file")

    @functools.cache
    def net(name: str) -> Network:
        spec = suite.model(name)
        model = models.create(spec.arch, data.classes, **spec.args)
        return Network(model, data.mean or (0.5,) * 3, data.std or (0.25,) * 3)

    @functools.cache
    def facts(name: str) -> ModelFacts:
        return net(name).facts(data.size)

    outcomes = {}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for pair in suite.pairs:
            outcome = Trial(suite, pair, net, facts).try_all(methods)
            outcomes.update({(name, str(pair)): outcome[name] for name in methods})
    return outcomes


@dataclass(frozen=True)
class OneBatch:
    """`kdbench.method.TeacherBatches` of a single batch, whatever the pass."""

    batch: Batch
    teacher: Views

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        yield self.batch, self.teacher

    def epoch(self, number: int) -> Iterator[tuple[Batch, Views]]:
        """Yield the batch."""
        yield from self


class Trial:
    """One pair: its networks run once, for all methods."""

    def __init__(
        self, suite: Suite, pair: Pair, net: Callable[[str], Network], facts: Callable[[str], ModelFacts]
    ) -> None:
        self.suite, self.pair, self.net = suite, pair, net
        classes = suite.dataset.classes
        images = max(10 * classes, suite.recipe.batch_size)
        self.context = Context(
            num_classes=classes,
            train_size=images,
            train_targets=torch.arange(images) % classes,
            batch_size=suite.recipe.batch_size,
            epochs=suite.recipe.epochs,
            student=facts(pair.student),
            teacher=facts(pair.teacher),
        )

    def try_all(self, names: Sequence[str]) -> dict[str, Outcome]:
        """Try the methods ``names``."""
        outcomes, runnable = {}, []
        for name in names:
            params = {**self.suite.params.get(name, {}), **self.pair.params.get(name, {})}
            method = registry.create(name, params)
            reason = self._missing_view(method.needs) or skip_reason(method, self._context(method))
            if reason:
                outcomes[name] = Outcome(SKIPS, reason)
            else:
                runnable.append(method)
        if not runnable:
            return outcomes
        needs = union(method.needs for method in runnable)
        student, teacher = self._outputs("student", needs), self._outputs("teacher", needs)
        for method in runnable:
            try:
                large = self._numbers(method) > LARGE
                with shapes() if large else contextlib.nullcontext():
                    self._step(method, leaves(student), teacher, values=not large)
                outcomes[method.name] = Outcome(RUNS)
            except Exception as error:  # whatever a method raises is its result here
                outcomes[method.name] = Outcome(FAILS, f"{type(error).__name__}: {error}")
        return outcomes

    def _missing_view(self, needs: Needs) -> str | None:
        lacking = [view for view in needs.views if find_view(self.suite.views, view) is None]
        return f"the suite has no view {lacking[0]!r}" if lacking else None

    def _context(self, method: Method) -> Context:
        return self.context if method.needs.teacher else replace(self.context, teacher=None)

    @torch.no_grad()
    def _outputs(self, role: Role, needs: Needs) -> Outputs:
        net = self.net(getattr(self.pair, role)).train(role == "student")
        return net(random_images(net, IMAGES, self.suite.dataset.size), needs.of(role))

    def _numbers(self, method: Method) -> int:
        """How many the modules hold; 0 where they cannot be built without values."""
        try:
            with shapes():
                modules = method.build(self._context(method))
        except (DataDependentOutputException, DynamicOutputShapeException):
            return 0
        return sum(t.numel() for t in [*modules.parameters(), *modules.buffers()])

    def _step(self, method: Method, student: Outputs, teacher: Outputs, values: bool) -> None:
        """Build, prepare, then loss, gradients and update in the first and the last epoch, and predict."""
        needs, context = method.needs, self._context(method)
        own = Views(dict.fromkeys(needs.views, student), needs.of("student"))
        other = Views(dict.fromkeys(needs.views, teacher), needs.of("teacher")) if needs.teacher else None
        modules = method.build(context)
        if overrides(method, "prepare") and other:
            with torch.no_grad():
                method.prepare(context, OneBatch(self._batch(needs, 0.0), other), modules)
        for epoch in (1.0, float(self.suite.recipe.reference_epochs)):
            batch = self._batch(needs, epoch)
            call = call_loss(method, batch, own, other, modules)
            total = backward([call]).total
            if values and not torch.isfinite(total):
                raise ValueError(f"the loss is {total.item()} in epoch {epoch:g}")
            call_update(method, [call], modules)
        if overrides(method, "predict"):
            with torch.no_grad():
                method.predict(own, modules.eval())

    def _batch(self, needs: Needs, epoch: float) -> Batch:
        index = torch.arange(IMAGES)
        return Batch(
            target=self.context.train_targets[index],
            epoch=epoch,
            last=True,
            progress=torch.tensor(0.0),
            generator=torch.Generator().manual_seed(0),
            sample_index=index if needs.index else None,
        )


def shapes() -> FakeTensorMode:
    """Inside, tensors have shapes but no values."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def leaves(outputs: Outputs) -> Outputs:
    """Copy outputs to leaves of a new graph, with the same values."""

    def leaf(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(leaf, value))
        return value.detach().clone().requires_grad_() if isinstance(value, Tensor) else value

    return replace(outputs, **{name: leaf(value) for name, value in vars(outputs).items()})


def table(suite: Suite, methods: Sequence[str], outcomes: Cells) -> str:
    """A row a method, a letter a pair, then the reasons; no line is wider than 80 columns."""
    letters = dict(zip(map(str, suite.pairs), string.ascii_letters, strict=False))
    width = max(map(len, ("method", *methods)))
    lines = [f"{suite.name}: {RUNS} runs, {SKIPS} skips, {FAILS} fails"]
    lines.append(fold(", ".join(f"{letter}={pair}" for pair, letter in letters.items()), indent=0))
    lines += ["", f"{'method':<{width}}  {''.join(letters.values())}"]
    reasons: dict[tuple[str, str], str] = {}
    for name in methods:
        row = {pair: outcomes[name, pair] for pair in letters}
        lines.append(f"{name:<{width}}  {''.join(cell.mark for cell in row.values())}")
        for pair, cell in row.items():
            if cell.reason:
                reasons[name, cell.reason] = reasons.get((name, cell.reason), "") + letters[pair]
    lines.append("")
    for (name, reason), where in reasons.items():
        lines.append(fold(f"{name} {where}: {reason}", indent=4))
    return "\n".join(lines).rstrip()
