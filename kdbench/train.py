"""The cohort loop: batches and views once, the teacher once, then each student's own step.

`train_cohort(job)` is one self-contained, picklable unit of work: it reads data and teacher itself, holds no globals
and returns what is to be written.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench import checkpoint, data, models, registry
from kdbench.data.sets import ImageSet, Split
from kdbench.errors import KdbenchError
from kdbench.evaluate import details, fidelity, quality, top_k
from kdbench.identity import generator
from kdbench.method import Batch, Context, ModelFacts, Needs, Outputs, Views
from kdbench.models.net import Net
from kdbench.plan import Cell
from kdbench.suites import DataSpec, Recipe
from kdbench.teachers import Teacher, teacher_logits
from kdbench.trainee import Trainee, build_net


@dataclass(frozen=True)
class Job:
    """One cohort and where its inputs lie. ``teacher`` is None when no cell needs one."""

    cells: tuple[Cell, ...]
    teacher: Teacher | None
    data_dir: Path | None
    work: Path  # checkpoints
    device: str
    plugins: Path | None = None


@dataclass
class Result:
    """What one cell came to: a row without provenance, its curves, and (status ok) details and student weights."""

    cell: Cell
    row: dict[str, Any]
    curves: list[tuple[int, str, float]] = field(default_factory=list)
    details: dict[str, np.ndarray] = field(default_factory=dict)
    student: dict[str, Tensor] = field(default_factory=dict)


class Progress:
    """What the loop tells while it runs; the default says nothing."""

    def begin(self, cells: int, epochs: int, steps: int, done: int) -> None: ...
    def step(self, images: int) -> None: ...
    def epoch(self, epoch: int, accuracy: Mapping[str, float]) -> None: ...
    def warn(self, text: str) -> None: ...
    def end(self) -> None: ...


def load_split(spec: DataSpec, split: str, data_dir: Path | None) -> Split:
    """The images of one split of a suite's data set, in canonical order."""
    dataset = data.load(spec.name, data_dir, spec.classes)
    return data.split(data.limit(dataset, spec.train_per_class, spec.test_per_class), split, spec.holdout)


def resumable(work: Path, cell: Cell) -> dict[str, Any] | None:
    """The cell's checkpoint, unless there is none or the method's code changed since."""
    state = checkpoint.load(checkpoint.path_of(work, cell.id))
    fits = state is not None and state["cell_id"] == cell.id and state["code"] == registry.code_hash(cell.method)
    return state if fits else None


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The rate of step ``step`` (from 0) of ``steps`` in epoch ``epoch`` (from 0).

    step: lr * decay^(milestones passed), milestones in reference epochs.  onecycle: linear from 0 to lr over the share
    ``peak`` of training, then linear to 0.
    """
    if recipe.schedule == "step":
        reference = epoch * recipe.reference_epochs / recipe.epochs
        return recipe.lr * recipe.decay ** sum(reference >= milestone for milestone in recipe.milestones)
    done = (epoch + (step + 0.5) / steps) / recipe.epochs
    return recipe.lr * min(done / recipe.peak, (1 - done) / (1 - recipe.peak))


def train_cohort(
    job: Job, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
) -> tuple[list[Result], bool]:
    """Train the cells of ``job`` side by side from their common checkpoint position.

    Returns a result a cell, and whether ``stop`` ended it early (the state is saved then and the results say
    "interrupted"). Raises torch.OutOfMemoryError for the caller to split the cohort.
    """
    return _Cohort(job, progress or Progress()).run(stop)


class _Cohort:
    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.device = torch.device(job.device)
        self.recipe = job.cells[0].recipe
        self.first = job.cells[0]
        registry.load(job.plugins)
        split = load_split(self.first.dataset, self.first.split, job.data_dir)
        self.evaluation = _to(split.evaluation, self.device)
        self.train = _to(split.train, self.device)
        self.teacher, self.teacher_eval = self._teacher(split)
        self.students_eval: dict[str, Tensor] = {}
        self.failures: dict[str, str] = {}
        self.trainees = self._trainees()
        self.steps = math.ceil(len(self.train.targets) / self.recipe.batch_size)
        self.warned_save = False

    def _teacher(self, split: Split) -> tuple[Net | None, Tensor | None]:
        teacher = self.job.teacher
        if teacher is None:
            return None, None
        net = teacher.net(self.first.dataset).to(self.device, memory_format=torch.channels_last)
        return net, teacher_logits(teacher, net, split, self.job.work, self.device)

    def _trainees(self) -> list[Trainee]:
        size, classes = self.first.dataset.size, self.first.dataset.classes
        teacher_facts = self.teacher.facts(size) if self.teacher else None
        trainees = []
        for cell in self.job.cells:
            try:
                net = build_net(cell, self.device)
                context = Context(
                    num_classes=classes,
                    train_size=len(self.train.targets),
                    train_targets=self.train.targets,
                    batch_size=cell.recipe.batch_size,
                    epochs=cell.recipe.epochs,
                    student=net.facts(size),
                    teacher=teacher_facts if cell.teacher else None,
                )
                trainee = Trainee(cell, context, net, self.device)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.failures[cell.id] = self._explain(cell, "build", error)
                continue
            state = resumable(self.job.work, cell) if trainee.outcome is None else None
            if state:
                trainee.load(state)
            elif trainee.outcome is None:
                self._guard(trainee, "prepare", lambda t=trainee: t.prepare(_TeacherPass(self, t.needs)))
            trainees.append(trainee)
        return trainees

    # --- the loop ---

    def run(self, stop: Callable[[], bool]) -> tuple[list[Result], bool]:
        live = self._live()
        start = (live[0].epoch, live[0].step_in_epoch) if live else (self.recipe.epochs, 0)
        done = start[0] * self.steps + start[1]
        self.progress.begin(len(live), self.recipe.epochs, self.steps, done)
        stopped = False
        for epoch in range(start[0], self.recipe.epochs):
            first_step = start[1] if epoch == start[0] else 0
            if not self._epoch(epoch, first_step, stop):
                stopped = True
                break
            self._end_epoch(epoch)
            if stop() and epoch + 1 < self.recipe.epochs:
                stopped = True
                break
            if not self._live():
                break
        self.progress.end()
        return [self._result(cell) for cell in self.job.cells], stopped

    def _live(self) -> list[Trainee]:
        return [t for t in self.trainees if t.outcome is None]

    def _epoch(self, epoch: int, first_step: int, stop: Callable[[], bool]) -> bool:
        """One pass over the train set; False when it was cut short (and saved)."""
        draws, order = self._draws(epoch)
        size = self.recipe.batch_size
        for step, chosen in enumerate(order.split(size)[first_step:], start=first_step):
            live = self._live()
            if not live:
                return True
            if stop():
                self._save(live)
                return False
            last_is_tail = len(order) % size
            tail_step = self.steps - 1 if last_is_tail else self.steps
            takers = [t for t in live if len(chosen) >= max(2, t.method.min_batch)]  # BatchNorm cannot take one sample
            if takers:
                self._step(epoch, step, chosen, draws, takers, tail_step, last_is_tail)
            for trainee in live:
                trainee.step_in_epoch = step + 1
            self.progress.step(len(chosen))
        return True

    def _step(
        self,
        epoch: int,
        step: int,
        chosen: Tensor,
        draws: Mapping[str, Mapping[str, Tensor]],
        takers: list[Trainee],
        tail_step: int,
        tail_size: int,
    ) -> None:
        needs = _union(takers)
        on_device = chosen.to(self.device)
        pixels, target = self.train.images[on_device], self.train.targets[on_device]
        images = {
            view: data.render(self.first.views[view], pixels, {k: v[chosen] for k, v in draws[view].items()})
            for view in needs.views
        }
        teacher = self._teacher_outputs(images, [t for t in takers if t.needs.teacher])
        done = (epoch + step / self.steps) / self.recipe.epochs
        progress = torch.tensor(done, device=self.device)
        for trainee in takers:
            takes_tail = not tail_size or tail_size >= max(2, trainee.method.min_batch)
            batch = Batch(
                target=target,
                epoch=(epoch + 1) * self.recipe.reference_epochs / self.recipe.epochs,
                last=step == (self.steps - 1 if takes_tail else tail_step - 1),
                progress=progress,
                generator=trainee.streams.generator,
                sample_index=on_device if trainee.needs.index else None,
            )
            rate = learning_rate(trainee.cell.recipe, epoch, step, self.steps)
            self._guard(
                trainee,
                "a training step",
                lambda t=trainee, b=batch, r=rate: t.step(b, images, teacher, r),
            )

    @torch.no_grad()
    def _teacher_outputs(self, images: Mapping[str, Tensor], takers: list[Trainee]) -> dict[str, Outputs]:
        if self.teacher is None or not takers:
            return {}
        needs = _union(takers)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")
        with autocast:
            return {view: self.teacher(images[view], needs) for view in needs.views}

    def _draws(self, epoch: int) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """All random choices of an epoch: each view's, and the order. Functions of (data, seed, epoch) alone."""
        where = (self.first.split_id, self.first.seed, epoch)
        count, images = len(self.train.targets), self.train.images
        views = _union(self._live() or self.trainees).views
        draws = {
            view: data.draw(
                self.first.views[view], count, (images.shape[1], images.shape[2]), generator(f"view:{view}", *where)
            )
            for view in views
        }
        return draws, torch.randperm(count, generator=generator("order", *where))

    def _end_epoch(self, epoch: int) -> None:
        last = epoch + 1 == self.recipe.epochs
        accuracy: dict[str, float] = {}
        for trainee in self._live():
            trainee.end_epoch()
        for trainee in self._live():
            if last or (epoch + 1) % trainee.cell.recipe.eval_every == 0:
                self._guard(trainee, "evaluation", lambda t=trainee: self._measure(t))
            label = " ".join(filter(None, [trainee.cell.method, trainee.cell.variant]))
            latest = {name: value for _, name, value in trainee.curves}
            accuracy[label] = latest.get("top1", latest["train_top1"])
        self._save(self._live())
        self.progress.epoch(epoch + 1, accuracy)

    def _measure(self, trainee: Trainee) -> None:
        logits = trainee.evaluate(self.evaluation)
        top1 = top_k(logits, self.evaluation.targets, 1)
        trainee.best = max(trainee.best, top1)
        trainee.curves.append((trainee.epoch, "top1", top1))
        self.students_eval[trainee.cell.id] = logits

    # --- what can go wrong, and what is kept ---

    def _guard(self, trainee: Trainee, what: str, action: Callable[[], None]) -> None:
        """A cell that raises is closed with the reason; its neighbours go on."""
        try:
            action()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            trainee.outcome = ("error", self._explain(trainee.cell, what, error))

    def _explain(self, cell: Cell, what: str, error: Exception) -> str:
        if isinstance(error, KdbenchError):
            return str(error)
        log = self.job.work / "errors" / f"{cell.id}.txt"
        try:
            checkpoint.write_atomic(log, traceback.format_exc().encode())
        except OSError:
            pass
        return f"{cell.method} failed in {what}: {type(error).__name__}: {error} (traceback in {log})"

    def _save(self, trainees: list[Trainee]) -> None:
        """All checkpoints of one position; a full disk costs the safety net, not the training."""
        try:
            for trainee in trainees:
                checkpoint.save(checkpoint.path_of(self.job.work, trainee.cell.id), trainee.state())
        except OSError as error:
            if not self.warned_save:
                self.progress.warn(
                    f"cannot save a checkpoint in {self.job.work} ({error.strerror}); training goes on, but a crash "
                    "would lose it: free some space"
                )
            self.warned_save = True

    def _result(self, cell: Cell) -> Result:
        trainee = next((t for t in self.trainees if t.cell is cell), None)
        row: dict[str, Any] = {"cohort_size": len(self.job.cells), "error": None}
        if trainee is None:
            return Result(cell, {**row, "status": "error", "error": self.failures[cell.id]})
        finished = trainee.outcome is None and trainee.epoch == cell.recipe.epochs
        status, reason = trainee.outcome or (("ok", "") if finished else ("interrupted", ""))
        row.update(status=status, error=reason or None, epochs_done=trainee.epoch)
        result = Result(cell, row, trainee.curves)
        if status == "skipped":
            return result
        row.update(self._cost(trainee))
        row.update({name: value for epoch, name, value in trainee.curves if name == "train_top1"})
        row.update({"final_loss": value for epoch, name, value in trainee.curves if name == "loss"})
        if finished:
            self._final_measures(trainee, result)
        return result

    def _final_measures(self, trainee: Trainee, result: Result) -> None:
        targets, row = self.evaluation.targets, result.row
        logits = self.students_eval.get(trainee.cell.id)
        if logits is None:  # the checkpoint was saved after the last epoch, the row was not
            logits = trainee.evaluate(self.evaluation)
        if not torch.isfinite(logits).all():
            row.update(status="diverged", error="the student's logits are not finite after training")
            return
        row.update(quality(logits, targets), top1_best=trainee.best)
        teacher = self.teacher_eval if trainee.needs.teacher else None
        if teacher is not None:
            row.update(fidelity(logits, teacher))
        result.details = details(logits, targets, teacher)
        result.student = {k: v.detach().cpu() for k, v in trainee.net.model.state_dict().items()}

    def _cost(self, trainee: Trainee) -> dict[str, Any]:
        seconds = trainee.watch.seconds
        images = trainee.epoch * len(self.train.targets) + trainee.seen
        extra = models.count_parameters(trainee.modules)
        deployed = models.count_parameters(trainee.net.model)
        return {
            "train_s": seconds,
            "eval_s": trainee.eval_s,
            "img_per_s": images / seconds if seconds else None,
            "peak_mem_mb": _peak_memory(self.device),
            "student_params": deployed + (extra if trainee.method.keeps_modules else 0),
            "extra_params": 0 if trainee.method.keeps_modules else extra,
            "macs": models.macs(trainee.net.model, self.first.dataset.size),
        }


class _TeacherPass:
    """The unaugmented train set with teacher outputs, batch by batch, in canonical order; iterate as often as needed."""

    def __init__(self, cohort: _Cohort, needs: Needs) -> None:
        self.cohort, self.needs = cohort, needs

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        cohort = self.cohort
        assert cohort.teacher is not None
        order = torch.arange(len(cohort.train.targets), device=cohort.device)
        for chosen in order.split(cohort.recipe.batch_size):
            images = data.plain(cohort.train.images[chosen])
            batch = Batch(
                target=cohort.train.targets[chosen],
                epoch=0.0,
                last=bool(chosen[-1] == order[-1]),
                progress=torch.tensor(0.0, device=cohort.device),
                generator=torch.Generator(cohort.device),
                sample_index=chosen if self.needs.index else None,
            )
            yield batch, Views({self.needs.views[0]: cohort.teacher(images, self.needs)}, self.needs)


def _union(trainees: list[Trainee]) -> Needs:
    needs = trainees[0].needs
    for trainee in trainees[1:]:
        needs = needs | trainee.needs
    return needs


def _to(images: ImageSet, device: torch.device) -> ImageSet:
    return ImageSet(images.images.to(device), images.targets.to(device))


def _peak_memory(device: torch.device) -> float:
    """MiB: of the device's allocations on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
