"""The cohort loop: batches, views and the teacher are computed once, then each student takes its own step.

`train_cohort(job)` is one self-contained, picklable unit of work: it reads data and teacher itself, holds no globals
and returns what is to be recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdbench import registry
from kdbench.data.batches import Fed
from kdbench.data.dataset import Split
from kdbench.data.mixup import Mixed, mix
from kdbench.data.streaming import open_feed
from kdbench.errors import KdbenchError
from kdbench.method import Context
from kdbench.metrics import top_k
from kdbench.models.wrapper import Network, to_device
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import form_cohorts
from kdbench.teachers.accuracy import teacher_logits
from kdbench.train import checkpoint
from kdbench.train.callbacks import Progress
from kdbench.train.cell_trainer import Trainee, build_net
from kdbench.train.cohort_step import CohortStep, EagerSteps, Inputs, open_ones
from kdbench.train.cuda_graphs import GraphRecorder, Recorder
from kdbench.train.failures import NOT_OF_A_CELL, Failures
from kdbench.train.job import Job, Result, load_images
from kdbench.train.ranks import Ranks
from kdbench.train.recorded_steps import RecordedSteps
from kdbench.train.result import result_of
from kdbench.train.schedule import evaluates, learning_rate, moment
from kdbench.train.teacher_outputs import SharedTeacher, open_shared_cache
from kdbench.train.teacher_pass import TeacherPass
from kdbench.utils.graph_kinds import BRANCHES
from kdbench.utils.memory import reset_peak
from kdbench.utils.needs import union
from kdbench.utils.precision import computing
from kdbench.utils.status import Status
from kdbench.utils.timer import Stopwatch


def train_cohort(
    job: Job,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
) -> tuple[list[Result], bool]:
    """Train the cells of ``job`` side by side; where their checkpoints are at different positions, group by group.

    Returns one result per cell, and whether ``stop`` ended it early: then the state is saved and the results say
    "interrupted". ranks: this process's among those that train the job together; the first one alone has the results.
    Raises torch.OutOfMemoryError for the caller to split the cohort, and of several ranks `CellsFailed`.
    """
    registry.load(job.plugins)
    registry.unpack(job.methods)
    results, stopped = [], False
    for cells in form_cohorts(job.cells, checkpoint.positions(job.work, job.cells)):
        cohort = Cohort(replace(job, cells=tuple(cells)), progress or Progress(), ranks=ranks)
        some, stopped = cohort.run(stop)
        results += some
    return results, stopped


class Cohort:
    """The live state of one job whose cells are at one position, and whose methods are registered.

    recorder: records its steps where the job says so; default: as CUDA graphs.
    """

    def __init__(
        self,
        job: Job,
        progress: Progress,
        recorder: Recorder | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.ranks = ranks
        with computing(torch.device(job.device), "fp32"):
            self._open(job, progress, recorder)

    def _open(self, job: Job, progress: Progress, recorder: Recorder | None) -> None:
        self.job, self.progress = job, progress
        self.device = torch.device(job.device)
        reset_peak(self.device)
        self.first = job.cells[0]
        self.recipe = self.first.recipe  # in what all cells share: epochs, batch size, precision, mixup
        split = load_images(job)
        self.train = open_feed(split.train, self.device)
        self.evaluation = open_feed(split.evaluation, self.device)
        self.steps = math.ceil(len(self.train) / self.recipe.batch_size)
        self.teacher, self.teacher_eval = self._teacher(split)
        self.shared = self._shared()
        self.data_watch, self.step_watch = Stopwatch(self.device), Stopwatch(self.device)
        self.students_eval: dict[str, Tensor] = {}
        self.failing = Failures(job.work)
        self.failures: dict[str, str] = {}  # of cells that could not even be built
        self.seconds_before: dict[str, dict[str, float]] = {}  # shared seconds before a resume
        self.saver = checkpoint.Saver(job.work, job.save_every, progress.warn)
        trainees = [t for cell in job.cells if (t := self._trainee(cell)) is not None]
        for failures in self.ranks.of_all(self.failures):
            self.failures = {**failures, **self.failures}
        self.trainees = [t for t in trainees if t.cell.id not in self.failures]
        self.stepping = self._stepping(recorder)

    def _stepping(self, recorder: Recorder | None) -> EagerSteps | RecordedSteps:
        self.in_step = self.failing.closing if self.ranks.world == 1 else self.failing.leaving
        eager = EagerSteps(self.shared, self.in_step)
        if not self.job.graphs:
            return eager
        for trainee in self._live():
            trainee.take_step.move_rate(self.device)
        recorder = recorder or GraphRecorder(self.device)
        together = self.job.graphs == BRANCHES
        return RecordedSteps(eager, recorder, together, self.step_watch, self.progress.warn)

    def _teacher(self, split: Split) -> tuple[Network | None, Tensor | None]:
        teacher = self.job.teacher
        if teacher is None:
            return None, None
        net = to_device(teacher.net(self.first.dataset), self.device)
        if not self.ranks.first:
            return net, None
        return net, teacher_logits(teacher, net, split, self.job.work, self.device)

    def _shared(self) -> SharedTeacher | None:
        if self.teacher is None:
            return None
        cache = None
        if cell := next((c for c in self.job.cells if c.teacher_cache), None):
            assert self.job.teacher_cache, "a cell of the teacher cache, and a job without its folder"
            folder = self.job.teacher_cache
            cache = open_shared_cache(folder, cell, len(self.train), self.device, self.progress.warn)
        return SharedTeacher(self.teacher, self.first, self.device, cache)

    def _trainee(self, cell: Cell) -> Trainee | None:
        size = self.first.dataset.size
        try:
            net = build_net(cell, self.device, self.job.work)
            context = Context(
                num_classes=self.first.dataset.classes,
                train_size=len(self.train),
                train_targets=self.train.targets.clone(),
                batch_size=cell.recipe.batch_size,
                epochs=cell.recipe.epochs,
                student=net.facts(size),
                teacher=self.teacher.facts(size) if self.teacher is not None and cell.teacher else None,
            )
            trainee = Trainee(cell, context, net, self.device, self.ranks)
            if trainee.outcome is None:
                state = checkpoint.resumable(self.job.work, cell)
                if state:
                    if other := trainee.load(state):
                        self.progress.warn(
                            f"{cell}: continues on {self.device.type} from a checkpoint of {other}; its numbers are "
                            "those of neither alone"
                        )
                    self.seconds_before[cell.id] = state.get("shared_seconds", {})
                else:
                    own = trainee.streams.generator
                    trainee.prepare(
                        TeacherPass(cell, self.train, self.teacher, trainee.needs, self.device, own)
                    )
            return trainee
        except NOT_OF_A_CELL:
            raise
        except Exception as error:
            self.failures[cell.id] = self.failing.explain(cell, "build", error)
            return None

    # --- the loop ---

    def run(self, stop: Callable[[], bool]) -> tuple[list[Result], bool]:
        """Train to the end or to ``stop``."""
        with computing(self.device, self.recipe.precision):
            try:
                return self._run(stop)
            finally:
                self.saver.finish()

    def _run(self, stop: Callable[[], bool]) -> tuple[list[Result], bool]:
        live = self._live()
        start = (live[0].epoch, live[0].step_in_epoch) if live else (self.recipe.epochs, 0)
        if live and start != (0, 0):
            names = ", ".join(str(trainee.cell) for trainee in live)
            self.progress.say(f"{names}: continuing after epoch {start[0]} of {self.recipe.epochs}")
        done = start[0] * self.steps + start[1]
        self.progress.begin([t.cell for t in live], self.recipe.epochs, self.steps, done)
        stopped = False
        for epoch in range(start[0], self.recipe.epochs):
            stopped = self._epoch(epoch, start[1] if epoch == start[0] else 0, stop)
            if not stopped:
                self._end_epoch(epoch)
                (stopped,) = self.ranks.any_of([stop() and epoch + 1 < self.recipe.epochs])
                if stopped:
                    self._save(self._live())
            if stopped or not self._live():
                break
        self.progress.end()
        if not self.ranks.first:
            return [], stopped
        for trainee in self._live():  # one whose process died between its last checkpoint and its row
            if trainee.epoch == self.recipe.epochs and trainee.cell.id not in self.students_eval:
                with self.failing.closing([trainee], "evaluation"):
                    self.students_eval[trainee.cell.id] = trainee.evaluate(self.evaluation)
        return [self._result(cell) for cell in self.job.cells], stopped

    def _live(self) -> list[Trainee]:
        return open_ones(self.trainees)

    def _epoch(self, epoch: int, first_step: int, stop: Callable[[], bool]) -> bool:
        """Train on an epoch from step ``first_step`` on; True when ``stop`` ended it early and the state is saved."""
        views = {
            name: self.first.view(name) for name in union(trainee.needs for trainee in self._live()).views
        }
        where = (self.first.split_id, self.first.seed, epoch)
        feed = self.train.epoch(views, where, self.recipe.batch_size, first_step, self.ranks.part)
        batches = self.ranks.in_step(self.data_watch.timed(feed), stop)
        try:
            for step, (fed, stopping) in enumerate(batches, start=first_step):
                live = self._live()
                if not live:
                    break
                if stopping:
                    self._save(live)
                    return True
                if trainees := [t for t in live if len(fed.index) >= t.min_batch]:
                    self._step(epoch, step, fed, trainees)
                for trainee in live:
                    trainee.step_in_epoch = step + 1
                self.progress.step(len(fed.index))
        except KdbenchError:  # a file of the next batch cannot be read: save what is trained so far
            self._save(self._live())
            raise
        return False

    def _step(self, epoch: int, step: int, fed: Fed, trainees: list[Trainee]) -> None:
        mixed = None
        if self.recipe.mixup:
            fed, mixed = mix(fed, self.recipe.mixup, (self.first.split_id, self.first.seed, epoch, step))
        with self.step_watch.running():
            self.stepping.take(self._cohort_step(epoch, step, fed, mixed, trainees), trainees)

    def _cohort_step(
        self, epoch: int, step: int, fed: Fed, mixed: Mixed | None, trainees: Sequence[Trainee]
    ) -> CohortStep:
        recipe, steps = self.recipe, self.steps
        reference, progress = moment(epoch, step, steps, recipe.epochs, recipe.reference_epochs)
        tail = len(self.train) % recipe.batch_size
        return CohortStep(
            inputs=Inputs(
                target=fed.target,
                index=fed.index,
                progress=torch.full((), progress, device=self.device),
                images=fed.images,
                mixed=mixed,
            ),
            rows=fed.rows,
            draws=fed.draws,
            epoch=reference,
            last={t.cell.id: step == steps - 1 - (0 < tail < t.min_batch) for t in trainees},
            rates={t.cell.id: learning_rate(t.cell.recipe, epoch, step, steps) for t in trainees},
        )

    def _end_epoch(self, epoch: int) -> None:
        last = epoch + 1 == self.recipe.epochs
        with self.in_step([t for t in self._live() if t.cell.teacher_cache], "the teacher's cache"):
            self.stepping.settle()
        for trainee in self._live():
            with self.in_step([trainee], "the end of an epoch"):
                trainee.end_epoch()
        measured = [t for t in self._live() if last or evaluates(t.cell.recipe, epoch)]
        for trainee in measured if self.ranks.first else ():
            with self.failing.closing([trainee], "evaluation"):
                self._measure(trainee)
        outcomes = self.ranks.of_first([trainee.outcome for trainee in measured])
        for trainee, outcome in zip(measured, outcomes, strict=True):
            trainee.outcome = outcome
        (due,) = self.ranks.of_first([last or self.saver.is_due])
        if due:
            self._save(self._live())
        self.progress.epoch(epoch + 1, {t.cell.id: t.latest() for t in self._live()})

    def _measure(self, trainee: Trainee) -> None:
        logits = trainee.evaluate(self.evaluation)
        top1 = top_k(logits, self.evaluation.targets, 1)
        trainee.best = max(trainee.best, top1)
        trainee.curves.append((trainee.epoch, "top1", top1))
        self.students_eval[trainee.cell.id] = logits
        floor = self.job.floors.get(trainee.cell.id, {}).get(trainee.epoch, 0.0)
        if trainee.best < floor and trainee.epoch < self.recipe.epochs:
            trainee.outcome = (
                Status.PRUNED,
                f"{trainee.best:.2f} % at best until epoch {trainee.epoch}, where earlier trials have {floor:.2f} %",
            )

    # --- checkpoints and results ---

    def _save(self, trainees: Sequence[Trainee]) -> None:
        """Have the checkpoints of ``trainees`` written."""
        for trainee in trainees:
            trainee.add_up_sums()
        if self.ranks.first:
            self.saver.save(
                [(t.cell, {**t.state(), "shared_seconds": self._shared_seconds(t)}) for t in trainees]
            )

    def _result(self, cell: Cell) -> Result:
        trainee = next((t for t in self.trainees if t.cell is cell), None)
        cohort: dict[str, Any] = {"cohort_size": len(self.job.cells)}
        if trainee is None:
            return Result(cell, {"status": Status.ERROR, "error": self.failures[cell.id], **cohort})
        if trainee.outcome is None or trainee.outcome[0] != Status.SKIPPED:
            cohort |= self._shared_seconds(trainee)
        with self.failing.closing([trainee], "its measurements"):
            logits = self.students_eval.get(cell.id)
            return result_of(trainee, logits, self.teacher_eval, self.evaluation, cohort)
        status, reason = trainee.outcome
        return Result(cell, {"status": status, "error": reason, "epochs_done": trainee.epoch, **cohort})

    def _shared_seconds(self, trainee: Trainee) -> dict[str, float]:
        """The cohort's cohort_s and data_s, and teacher_s of the views that the cell reads."""
        seconds = {"cohort_s": self.step_watch.seconds, "data_s": self.data_watch.seconds}
        if self.shared and trainee.needs.teacher:
            seconds["teacher_s"] = self.shared.seconds(trainee.needs.views)
        before = self.seconds_before.get(trainee.cell.id, {})
        return {name: value + before.get(name, 0.0) for name, value in seconds.items()}
