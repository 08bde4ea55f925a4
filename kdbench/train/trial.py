"""One step of methods on a pair's networks and random images: whether they run, before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import UninitializedParameter

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Context, Method, ModelFacts, Outputs, Views, overrides
from kdbench.models.flops import random_images
from kdbench.models.wrapper import Network, to_device
from kdbench.suites import Recipe, Suite
from kdbench.train.skip_rules import skip_reason
from kdbench.train.step import backward, build_modules, call_loss, call_update, smoothing_refusal
from kdbench.utils.needs import Needs, Role, union

FEW, MORE = 2, 32  # images of a trial, and of the second one that a method which fails is given
LARGE = 50_000_000  # modules of more numbers are tried on shapes alone (semckd from resnet50: 850 million)
LAST = 0.999  # of the training is done in its last epoch
RUNS, SKIPS, FAILS = ".", "n", "X"


@dataclass(frozen=True)
class Outcome:
    """What came of one method on one pair; ``reason`` is empty where it runs."""

    mark: str
    reason: str = ""


class Networks:
    """The networks of a suite with random weights, and their facts; each is built when it is first needed."""

    def __init__(self, suite: Suite, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        self.suite, self.device = suite, device
        self._built: dict[str, tuple[Network, ModelFacts]] = {}

    def __getitem__(self, name: str) -> tuple[Network, ModelFacts]:
        """Raises KdbenchError for a network that cannot be built or does not work at the suite's size."""
        if name not in self._built:
            spec, data = models.bare(self.suite.model(name)), self.suite.dataset
            with torch.random.fork_rng([]):
                torch.manual_seed(0)
                model = models.create(spec.arch, data.classes, **spec.args)
            net = to_device(Network(model, data.mean or (0.5,) * 3, data.std or (0.25,) * 3), self.device)
            self._built[name] = net, net.facts(data.size)
        return self._built[name]


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
    """A student and its teacher (None: methods without one), each of which runs once for all methods."""

    def __init__(
        self, networks: Networks, student: str, teacher: str | None, recipe: Recipe, targets: Tensor
    ) -> None:
        """``targets``: [N] int64, of the training images."""
        self._nets = {"student": networks[student][0], "teacher": networks[teacher][0] if teacher else None}
        self._size, self._recipe = networks.suite.dataset.size, recipe
        self._seen: dict[tuple[Role, Needs, int], Outputs] = {}
        self._context = Context(
            num_classes=networks.suite.dataset.classes,
            train_size=len(targets),
            train_targets=targets.to(networks.device),
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            student=networks[student][1],
            teacher=networks[teacher][1] if teacher else None,
        )

    def outcomes(self, methods: Sequence[Method], finite: bool = True) -> list[Outcome]:
        """Try each method. ``finite``: a loss that is not finite is a failure."""
        reasons = [skip_reason(method, self._context_of(method)) for method in methods]
        runnable = [method for method, reason in zip(methods, reasons, strict=True) if not reason]
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            failures = iter(self._failures(runnable, finite))
        return [Outcome(SKIPS, reason) if reason else _outcome(next(failures)) for reason in reasons]

    def _failures(self, methods: Sequence[Method], finite: bool) -> list[str]:
        """Why each method fails, '' where it does not; what fails on few images is tried on more."""
        few = [self._failure(methods, method, FEW, finite) for method in methods]
        more = min(MORE, self._context.batch_size, self._context.train_size)
        return [
            self._failure([method], method, more, finite) if failure else ""
            for method, failure in zip(methods, few, strict=True)
        ]

    def _failure(self, together: Sequence[Method], method: Method, images: int, finite: bool) -> str:
        count = max(images, *(each.min_batch for each in together))
        needs = union(each.needs for each in together)
        student, teacher = self._outputs("student", needs, count), self._outputs("teacher", needs, count)
        try:
            large = self._numbers(method) > LARGE
            with shapes() if large else contextlib.nullcontext():
                self._step(method, leaves(student), teacher, count, finite and not large, large)
        except Exception as error:  # whatever a method raises is its result here
            return str(error) if isinstance(error, KdbenchError) else f"{type(error).__name__}: {error}"
        return ""

    def _context_of(self, method: Method) -> Context:
        return self._context if method.needs.teacher else replace(self._context, teacher=None)

    @torch.no_grad()
    def _outputs(self, role: Role, needs: Needs, count: int) -> Outputs:
        net, key = self._nets[role], (role, needs, count)
        if net is not None and key not in self._seen:
            net.train(role == "student")
            self._seen[key] = net(random_images(net, count, self._size), needs.of(role))
        return self._seen[key] if net is not None else Outputs(torch.empty(0))

    def _numbers(self, method: Method) -> int:
        """How many the modules hold; 0 where they cannot be built without values, or at all, as the step will say."""
        try:
            with shapes():
                modules = build_modules(method, self._context_of(method))
        except Exception:
            return 0
        return sum(t.numel() for t in [*modules.parameters(), *modules.buffers()])

    def _step(
        self, method: Method, student: Outputs, teacher: Outputs, count: int, finite: bool, large: bool
    ) -> None:
        """Build, prepare, then loss, gradients and update in the first and the last epoch, and predict."""
        needs, context = method.needs, self._context_of(method)
        own = Views(dict.fromkeys(needs.views, student), needs.of("student"))
        other = Views(dict.fromkeys(needs.views, teacher), needs.of("teacher")) if needs.teacher else None
        if large:  # parameters without values can be made on a device, and not be moved there
            with student.logits.device:
                modules = build_modules(method, context)
        else:
            modules = build_modules(method, context).to(student.logits.device)
        made = {*map(id, modules.parameters())}
        if any(isinstance(parameter, UninitializedParameter) for parameter in modules.parameters()):
            raise KdbenchError(
                f"{method.name} builds lazy modules, whose parameters nothing trains; say their sizes"
            )
        if overrides(method, "prepare") and other:
            with torch.no_grad():
                method.prepare(context, OneBatch(self._batch(needs, 0.0, count), other), modules)
        for epoch in (1.0, float(self._recipe.reference_epochs)):
            batch = self._batch(needs, epoch, count)
            call = call_loss(method, batch, own, other, modules)
            if self._recipe.label_smoothing and (reason := smoothing_refusal(method, call)):
                raise KdbenchError(reason)
            total = backward([call]).total
            if finite and not torch.isfinite(total):
                raise ValueError(f"the loss is {total.item()} in epoch {epoch:g}")
            call_update(method, [call], modules)
            if {*map(id, modules.parameters())} != made:
                raise KdbenchError(
                    f"{method.name} makes parameters in loss, which nothing trains; make them in build"
                )
        if overrides(method, "predict"):
            with torch.no_grad():
                method.predict(own, modules.eval())

    def _batch(self, needs: Needs, epoch: float, count: int) -> Batch:
        targets = self._context.train_targets
        index = torch.arange(count, device=targets.device) % len(targets)
        return Batch(
            target=targets[index],
            epoch=epoch,
            last=True,
            progress=torch.tensor(0.0 if epoch <= 1 else LAST, device=targets.device),
            generator=torch.Generator(targets.device).manual_seed(0),
            sample_index=index if needs.index else None,
        )


def _outcome(failure: str) -> Outcome:
    return Outcome(FAILS, failure) if failure else Outcome(RUNS)


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
