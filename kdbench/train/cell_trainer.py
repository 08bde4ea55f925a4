"""One cell while it trains: student, method, modules and optimiser."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kdbench import models, registry
from kdbench.data.batches import Feed
from kdbench.data.mixup import Mixed
from kdbench.errors import KdbenchError
from kdbench.method import (
    Batch,
    Context,
    Needs,
    Outputs,
    Views,
    overrides,
)
from kdbench.metrics import predictions
from kdbench.models import pretrained
from kdbench.models.flops import probing
from kdbench.models.wrapper import Network, to_device
from kdbench.plan.cells import Cell
from kdbench.suites import Recipe
from kdbench.train.optimizers import Optimisation
from kdbench.train.ranks import Ranks, shared
from kdbench.train.skip_rules import skip_reason
from kdbench.train.step import Step, build_modules
from kdbench.utils.environment import machine
from kdbench.utils.needs import union
from kdbench.utils.precision import autocast
from kdbench.utils.rng import Streams, stream
from kdbench.utils.status import Status
from kdbench.utils.timer import StepWatch, Stopwatch


def build_net(cell: Cell, device: torch.device, work: Path) -> Network:
    """The student with its initial weights: the same for every method, a function of data, seed and student only.

    work: has the pretrained weights that the student starts from.
    """
    spec, data = cell.student_model, cell.dataset
    with torch.random.fork_rng([]):
        torch.manual_seed(stream("init", cell.split_id, cell.seed, cell.student))
        if spec.weights:
            model = pretrained.load(spec, data.classes, pretrained.folder(work))
        else:
            model = models.create(spec.arch, data.classes, **spec.args)
    net = Network(model, *spec.normalisation(data))
    if cell.recipe.trains == "head":
        net.freeze_features()
    return to_device(net, device)


def passes(needs: Needs, recipe: Recipe) -> list[Needs]:
    """The needs of each call of the loss in a step: one call, or one per view of the recipe's ``train_views``.

    A method that declares several views reads them in one call whatever the recipe says.
    """
    views = recipe.views(needs.views)
    return [needs] if views == needs.views else [dataclasses.replace(needs, views=(v,)) for v in views]


class Trainee:
    """One cell while it trains. ``outcome`` is None while it trains, else (status, reason)."""

    def __init__(
        self,
        cell: Cell,
        context: Context,
        net: Network,
        device: torch.device,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.cell, self.context, self.device, self.ranks = cell, context, device, ranks
        self.method = cell.build_method()
        self.passes = passes(self.method.needs, cell.recipe)
        self.needs = union(self.passes)  # the passes' views, in their order
        self.min_batch = max(2, self.method.min_batch)  # BatchNorm cannot train on a single sample
        self.outcome: tuple[Status, str] | None = None
        self.mixed = False  # trained on two machines that give other bits
        self.epoch, self.step_in_epoch, self.seen = 0, 0, 0
        self.sums: dict[str, Tensor] = {}
        self.curves: list[tuple[int, str, float]] = []
        self.best = float("-inf")
        self.eval_s = 0.0
        self.watch = StepWatch(device)
        self.streams = Streams(stream("cell", cell.split_id, cell.seed, cell.student), device)
        self.net = net
        if reason := skip_reason(self.method, context):
            self.outcome = (Status.SKIPPED, reason)
            return
        with self.streams.active():
            self.modules = build_modules(self.method, context)
        self.modules.to(device)
        recipe = cell.recipe
        how = (Optimisation.of(recipe), recipe.label_smoothing, ranks)
        self.take_step = Step(self.method, net, self.modules, *how)
        self.trained = nn.ModuleList([net, self.modules] if self.method.keeps_modules else [net])
        self.average = ModelEmaV3(self.trained, recipe.ema, use_warmup=True) if recipe.ema else None
        self.averaged = 0  # steps

    def prepare(self, teacher_batches: Any) -> None:
        """Call the method's ``prepare``, where it has one."""
        if overrides(self.method, "prepare"):
            watch = Stopwatch(self.device)
            with self.streams.active(), torch.no_grad(), watch.running():
                self.method.prepare(self.context, teacher_batches, self.modules)
            self.watch.add(watch.seconds)

    def step(
        self,
        batch: Batch,
        images: Mapping[str, Tensor],
        teacher: Mapping[str, Outputs],
        lr: float,
        mixed: Mixed | None = None,
    ) -> None:
        """Train one step on one batch at the learning rate ``lr``. ``mixed``: what its images were blended with."""
        with self.watch.running():
            self.begin_step(lr)
            self.compute(batch, images, teacher, mixed)
            self.finish_step(len(batch.target))

    def begin_step(self, lr: float) -> None:
        """What comes before the computation of a step, however it is done."""
        self.take_step.set_rate(lr)

    def finish_step(self, images: int) -> None:
        """What comes after it."""
        if self.average is not None:
            self.averaged += 1
            self.average.update(self.trained, self.averaged)
        self.seen += images

    def compute(
        self,
        batch: Batch,
        images: Mapping[str, Tensor],
        teacher: Mapping[str, Outputs],
        mixed: Mixed | None = None,
    ) -> None:
        """The part of a step that runs on the device: it changes no number of the host, so it can be recorded."""
        with self.streams.active():
            self._compute(batch, images, teacher, mixed)

    def _compute(
        self,
        batch: Batch,
        images: Mapping[str, Tensor],
        teacher: Mapping[str, Outputs],
        mixed: Mixed | None,
    ) -> None:
        student, size = self.needs.of("student"), len(batch.target)
        with autocast(self.cell.recipe.precision, self.device), self.ranks.batch_norm(size):
            outputs = {view: self.net(images[view], student) for view in student.views}
        given = shared(self.ranks, self.method, batch, outputs, teacher)
        shown = [
            (
                Views(given.student, needs.of("student")),
                Views(given.teacher, needs.of("teacher")) if needs.teacher else None,
            )
            for needs in self.passes
        ]
        with given.batch_norm:
            losses = self.take_step(given.batch, shown, mixed, given.share)
        self._add("loss", losses.total * size)
        if not overrides(self.method, "predict"):  # else the student's own logits are not its prediction
            logits = self.ranks.own_of(outputs[self.needs.views[0]].logits.detach(), size)
            self._add("hits", (logits.argmax(dim=1) == batch.target[self.ranks.own(size)]).sum())
        for name, value in losses.terms.items():
            self._add(f"loss_{name}", value * size)

    def _add(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name].add_(value)
        else:
            self.sums[name] = value

    def add_up_sums(self) -> None:
        """Have the sums of all ranks, each of which counts its own share of the batches."""
        self.ranks.add_up(self.sums[name] for name in sorted(self.sums))

    def end_epoch(self) -> None:
        """Add the epoch's means to the curves; a loss that is not finite closes the cell."""
        self.watch.settle()
        self.add_up_sums()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        means = {name: value.item() / self.seen for name, value in self.sums.items() if self.seen}
        if "hits" in means:
            means["train_top1"] = 100.0 * means.pop("hits")
        for name, value in means.items():
            self.curves.append((self.epoch, name, value))
        for total in self.sums.values():  # a recorded step goes on adding to the same tensors
            total.zero_()
        self.seen = 0
        loss = means.get("loss", float("nan"))
        if not torch.isfinite(torch.tensor(loss)):
            self.outcome = (Status.DIVERGED, self._divergence(loss))

    def _divergence(self, loss: float) -> str:
        recipe, method = self.cell.recipe, self.method
        heaviest = max(method.weights, key=lambda key: getattr(method, key), default="")
        remedies = [f"a smaller learning rate than {recipe.lr:g} (--lr)"]
        remedies += [] if recipe.clip else ["clipped gradients (--clip 5)"]
        if heaviest and getattr(method, heaviest) > 1:
            remedies.append(f"a smaller {method.name}.{heaviest} than {getattr(method, heaviest):g}")
        return f"the training loss became {loss} in epoch {self.epoch}; try {' or '.join(remedies)}"

    @property
    def deployed(self) -> tuple[Network, nn.Module]:
        """The student and its modules as they are evaluated and exported: averaged, where the recipe says so."""
        parts = [*(self.average.module if self.average is not None else self.trained), self.modules]
        return parts[0], parts[1]

    def latest(self) -> dict[str, float]:
        """What the curves hold of the epoch that ended last."""
        own = itertools.takewhile(lambda point: point[0] == self.epoch, reversed(self.curves))
        return {name: value for _, name, value in own}

    def predict(self, images: Tensor) -> Tensor:
        """The deployed student's logits on ``images`` in 0..1."""
        net, modules = self.deployed
        declared = self.needs if overrides(self.method, "predict") else Needs(views=self.needs.views)
        needs = declared.of("student")
        student = Views({needs.views[0]: net(images, needs)}, needs)
        return self.method.predict(student, modules)

    def evaluate(self, evaluation: Feed) -> Tensor:
        """Logits of the deployed student, eval mode, fp32; training state is left as it was."""
        begin = time.perf_counter()
        net, modules = self.deployed
        with probing(net), probing(modules):
            logits = predictions(self.predict, evaluation)
        expected = (len(evaluation), self.context.num_classes)
        if tuple(logits.shape) != expected:
            raise KdbenchError(f"predict must return logits {list(expected)}, got {list(logits.shape)}")
        self.eval_s += time.perf_counter() - begin
        return logits

    def state(self) -> dict[str, Any]:
        """Everything that another process needs to continue training with the same bits: tensors and plain values."""
        return {
            "cell_id": self.cell.id,
            "code": registry.code_hash(self.cell.method),
            "machine": machine(self.device),
            "mixed": self.mixed,
            "epoch": self.epoch,
            "step": self.step_in_epoch,
            "seen": self.seen,
            "sums": self.sums,
            "curves": self.curves,
            "best": self.best,
            "seconds": [self.watch.seconds, self.eval_s],
            "timed_steps": self.watch.timed,
            "net": self.net.state_dict(),
            "modules": self.modules.state_dict(),
            "optimizer": self.take_step.state_dict(),
            "streams": self.streams.state(),
            "average": self.average.state_dict() if self.average is not None else None,
            "averaged": self.averaged,
        }

    def load(self, state: Mapping[str, Any]) -> str:
        """Restore what `state` returned; on another kind of device random streams start anew.

        Returns in words what was other than here, so that the bits are of neither; '' where nothing was.
        """
        self.epoch, self.step_in_epoch, self.seen = state["epoch"], state["step"], state["seen"]
        self.sums = {name: self.ranks.first * value.to(self.device) for name, value in state["sums"].items()}
        self.curves = [tuple(row) for row in state["curves"]]
        self.best = state["best"]
        seconds, self.eval_s = state["seconds"]
        self.watch.load(seconds, state.get("timed_steps", 0))
        self.net.load_state_dict(state["net"])
        self.modules.load_state_dict(state["modules"])
        self.take_step.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.averaged = state["averaged"]
        there, here = state.get("machine", {}), machine(self.device)
        other = [
            f"other {key} ({there[key]}, here {here[key]})"
            for key in here
            if there.get(key, here[key]) != here[key]
        ]
        if not self.streams.load(state["streams"]):
            other = ["another kind of device"]
        self.mixed = bool(other) or state.get("mixed", False)
        return ", ".join(other)
