"""One cell while it trains: student, method, modules and optimiser."""

from __future__ import annotations

import dataclasses
import functools
import operator
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import models, registry
from kdbench.data.batches import Feed
from kdbench.errors import KdbenchError
from kdbench.method import (
    Batch,
    Context,
    Method,
    ModelFacts,
    Needs,
    Outputs,
    Role,
    Terms,
    Views,
    overrides,
    union,
)
from kdbench.metrics import predictions
from kdbench.models.flops import probing
from kdbench.models.wrapper import Net, to_device
from kdbench.plan.cells import Cell
from kdbench.suites import Recipe
from kdbench.utils.precision import autocast
from kdbench.utils.rng import Streams, stream
from kdbench.utils.status import Status
from kdbench.utils.timer import Stopwatch


def build_net(cell: Cell, device: torch.device) -> Net:
    """The student with its initial weights: the same for every method, a function of data, seed and student only."""
    model_spec, data = cell.student_model, cell.dataset
    with torch.random.fork_rng([]):
        torch.manual_seed(stream("init", cell.split_id, cell.seed, cell.student))
        model = models.create(model_spec.arch, data.classes, **model_spec.args)
    return to_device(Net(model, data.mean, data.std), device)


def passes(needs: Needs, recipe: Recipe) -> list[Needs]:
    """What each call of a step's loss may read: one call, or one for each of the recipe's ``train_views``.

    A method that declares several views reads them in one call whatever the recipe says.
    """
    views = recipe.views(needs.views)
    return [needs] if views == needs.views else [dataclasses.replace(needs, views=(v,)) for v in views]


def unmet(needs: Needs, student: ModelFacts, teacher: ModelFacts | None) -> str | None:
    """Why a pair cannot give what a method declares, or None."""
    models: dict[Role, ModelFacts | None] = {"student": student, "teacher": teacher}
    for role, facts in models.items():
        if needs.of(role).preact and facts is not None and not facts.has_preact:
            return f"the {role} has no pre-activation stages"
    return None


def skip_reason(method: Method, context: Context) -> str | None:
    """Why ``method`` cannot train this pair, or None."""
    reason = unmet(method.needs, context.student, context.teacher) or method.skip(context)
    if not reason and context.num_classes < method.min_classes:
        reason = f"{method.name} needs at least {method.min_classes} classes"
    largest = min(context.batch_size, context.train_size)
    if not reason and largest < method.min_batch:
        reason = f"{method.name} needs batches of at least {method.min_batch} images; the largest here is {largest}"
    return reason


class Trainee:
    """The live state of one cell. ``outcome`` is None while it trains, else (status, reason)."""

    def __init__(self, cell: Cell, context: Context, net: Net, device: torch.device) -> None:
        self.cell, self.context, self.device = cell, context, device
        self.method = cell.build_method()
        self.passes = passes(self.method.needs, cell.recipe)
        self.needs = union(self.passes)  # the passes' views, in their order
        self.min_batch = max(2, self.method.min_batch)  # BatchNorm cannot train on a single sample
        self.outcome: tuple[Status, str] | None = None
        self.epoch, self.step_in_epoch, self.seen = 0, 0, 0
        self.sums: dict[str, Tensor] = {}
        self.curves: list[tuple[int, str, float]] = []
        self.best = float("-inf")
        self.eval_s = 0.0
        self.watch = Stopwatch(device)
        self.streams = Streams(stream("cell", cell.split_id, cell.seed, cell.student), device)
        self.net = net
        if reason := skip_reason(self.method, context):
            self.outcome = (Status.SKIPPED, reason)
            return
        with self.streams.active():
            self.modules = self.method.build(context)
        if not isinstance(self.modules, nn.Module):
            raise KdbenchError(
                f"{cell.method}.build must return a torch.nn.Module, got {type(self.modules).__name__}"
            )
        self.modules.to(device)
        recipe = cell.recipe
        self.optimizer = torch.optim.SGD(
            [*self.net.parameters(), *self.modules.parameters()],
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        momentum_from_zero(self.optimizer)

    def prepare(self, teacher_batches: Any) -> None:
        """The method's one pass over the train set, where it has one."""
        if overrides(self.method, "prepare"):
            with self.streams.active(), torch.no_grad(), self.watch.running():
                self.method.prepare(self.context, teacher_batches, self.modules)

    def step(
        self, batch: Batch, images: Mapping[str, Tensor], teacher: Mapping[str, Outputs], lr: float
    ) -> None:
        """Forward, loss, backward, update, optimiser: one training step on one batch."""
        self.set_rate(lr)
        with self.watch.running(), self.streams.active():
            self.compute(batch, images, teacher)
        self.seen += len(batch.target)

    def set_rate(self, lr: float) -> None:
        """The learning rate of the next step; a rate that lies on the device (of a recorded step) stays there."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def compute(self, batch: Batch, images: Mapping[str, Tensor], teacher: Mapping[str, Outputs]) -> None:
        """All of a step that runs on the device: no host number changes here, so it can be recorded and replayed."""
        with autocast(self.cell.recipe.precision, self.device):
            asked = self.needs.of("student")
            outputs = {view: self.net(images[view], asked) for view in asked.views}
        calls = [
            (
                Views(outputs, needs.of("student")),
                Views(teacher, needs.of("teacher")) if needs.teacher else None,
            )
            for needs in self.passes
        ]
        returned = [self.method.loss(batch, *views, self.modules) for views in calls]
        terms = _added([check_terms(self.cell.method, each) for each in returned])
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        if overrides(self.method, "update"):
            with torch.no_grad():
                for views, each in zip(calls, returned, strict=True):
                    detached = {name: value.detach() for name, value in each.items()}
                    self.method.update(batch, *views, self.modules, detached)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        size = len(batch.target)
        self._add("loss", total.detach() * size)
        if not overrides(self.method, "predict"):  # else the student's own logits are not its prediction
            logits = outputs[self.needs.views[0]].logits.detach()
            self._add("hits", (logits.argmax(dim=1) == batch.target).sum())
        for name, value in terms.items():
            self._add(f"loss_{name}", value.detach() * size)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name].add_(value)
        else:
            self.sums[name] = value

    def end_epoch(self) -> None:
        """Sums -> curves; a loss that is not finite closes the cell."""
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        means = {name: value.item() / max(self.seen, 1) for name, value in self.sums.items()}
        if "hits" in means:
            means["train_top1"] = 100.0 * means.pop("hits")
        for name, value in means.items():
            self.curves.append((self.epoch, name, value))
        self.sums, self.seen = {}, 0
        loss = means.get("loss", float("nan"))
        if not torch.isfinite(torch.tensor(loss)):
            self.outcome = (Status.DIVERGED, f"the training loss became {loss} in epoch {self.epoch}")

    def predict(self, images: Tensor) -> Tensor:
        """The deployed student's logits on ``images`` in 0..1."""
        asked = self.needs if overrides(self.method, "predict") else Needs(views=self.needs.views)
        needs = asked.of("student")
        student = Views({needs.views[0]: self.net(images, needs)}, needs)
        return self.method.predict(student, self.modules)

    def evaluate(self, evaluation: Feed) -> Tensor:
        """Logits of the deployed student, eval mode, fp32; training state is left as it was."""
        begin = time.perf_counter()
        with probing(self.net), probing(self.modules):
            logits = predictions(self.predict, evaluation)
        expected = (len(evaluation), self.context.num_classes)
        if tuple(logits.shape) != expected:
            raise KdbenchError(f"predict must return logits {list(expected)}, got {list(logits.shape)}")
        self.eval_s += time.perf_counter() - begin
        return logits

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on as if nothing had happened; tensors and plain values."""
        return {
            "cell_id": self.cell.id,
            "code": registry.code_hash(self.cell.method),
            "epoch": self.epoch,
            "step": self.step_in_epoch,
            "seen": self.seen,
            "sums": self.sums,
            "curves": self.curves,
            "best": self.best,
            "seconds": [self.watch.seconds, self.eval_s],
            "net": self.net.state_dict(),
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": self.streams.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The counterpart of `state`."""
        self.epoch, self.step_in_epoch, self.seen = state["epoch"], state["step"], state["seen"]
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.curves = [tuple(row) for row in state["curves"]]
        self.best = state["best"]
        self.watch.seconds, self.eval_s = state["seconds"]
        self.net.load_state_dict(state["net"])
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        momentum_from_zero(self.optimizer)  # of a checkpoint that was written without
        self.streams.load(state["streams"])


def momentum_from_zero(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter without a momentum buffer one of zeros.

    torch makes it at a parameter's first gradient, as a copy of it: momentum * 0 + gradient, the same number. But a
    fused step fails where only some of its parameters have a buffer, as after a change of a method's phase.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _added(calls: list[Terms]) -> Terms:
    """Terms of several calls, summed by name."""
    return {name: functools.reduce(operator.add, [terms[name] for terms in calls]) for name in calls[0]}


def check_terms(method: str, returned: Any) -> Terms:
    """The terms that are summed. Raises KdbenchError when ``loss`` broke its contract."""
    if not isinstance(returned, dict) or not any(not name.startswith("_") for name in returned):
        raise KdbenchError(f"{method}.loss must return a dict of named scalar tensors, got {returned!r:.80}")
    terms = {name: value for name, value in returned.items() if not name.startswith("_")}
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise KdbenchError(f"{method}.loss: the term {name!r} must be a 0-dim tensor, got {shape}")
    return terms
