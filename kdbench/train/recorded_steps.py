"""The steps of a cohort as CUDA graphs: one per cell, and one of the whole cohort with its cells as branches.

Used with `kdbench run --graphs` only. The first steps of an epoch, its last one and smaller batches run eagerly. What
is recorded computes what the eager step does from the same random streams, up to the rounding of a learning rate that
is an fp32 tensor on the device. A recording knows one `batch.epoch`: those that read it are made anew in each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.method import Batch
from kdbench.train.cell_trainer import Trainee
from kdbench.train.cohort_step import CohortStep, EagerSteps, open_ones
from kdbench.train.cuda_graphs import Buffers, Recorder, Recording
from kdbench.train.teacher_outputs import ByView
from kdbench.utils.graph_kinds import BRANCHES, SEQUENTIAL
from kdbench.utils.timer import Stopwatch

TIMED = (
    20  # recorded steps of an epoch that run cell by cell, each on its own clock, before all cells run as one
)


def settled(graphs: str) -> int:
    """After how many steps of an epoch all is recorded, for one of `graph_kinds.GRAPHS`; without graphs 0."""
    return {"": 0, SEQUENTIAL: Recording.EAGER + 1, BRANCHES: Recording.EAGER + TIMED + 1}[graphs]


@dataclass(frozen=True)
class _Observed(Batch):
    """A batch that calls ``epoch_read`` when its epoch is read."""

    epoch_read: Callable[[], object] = bool

    def __getattribute__(self, name: str) -> Any:
        if name == "epoch":
            super().__getattribute__("epoch_read")()
        return super().__getattribute__(name)


class RecordedSteps:
    """Steps that are recorded and replayed.

    together: whether the cohort is one graph once each cell was timed. watch: runs while the steps do; recording is off
    it. warn: is called with what the user should know.
    """

    def __init__(
        self,
        eager: EagerSteps,
        recorder: Recorder,
        together: bool,
        watch: Stopwatch,
        warn: Callable[[str], None],
    ) -> None:
        self._eager, self._recorder, self._together = eager, recorder, together
        self._watch, self._warn = watch, warn
        self._waiting: set[str] = set()  # cells that the user knows to wait for the device
        self._forget(())

    def _forget(self, members: tuple[str, ...]) -> None:
        """Start anew with the cells ``members``."""
        self._members = members
        self._buffers: Buffers | None = None
        self._epoch = 0.0
        self._one_by_one = 0  # steps of this epoch in which every cell was replayed by itself
        self._views: dict[str, Recording] = {}  # the teacher's forward pass of each view
        self._cells: dict[str, Recording] = {}
        self._whole: Callable[[], ByView] | None = None
        self._readers: set[str] = set()  # cells whose recording holds the epoch
        self._computed: ByView = {}  # the teacher's outputs in the step that runs

    def take(self, step: CohortStep, trainees: Sequence[Trainee]) -> None:
        """Train ``trainees`` by one step; a cell that raises is closed."""
        full = len(step.inputs.target) == trainees[0].context.batch_size
        if not full or any(step.last[trainee.cell.id] for trainee in trainees):
            self._eager.take(step, trainees)
            return
        members = tuple(trainee.cell.id for trainee in trainees)
        if members != self._members:
            self._forget(members)
        with self._eager.closing([t for t in trainees if t.needs.teacher], "the teacher's cache"):
            cached = self._look_up(step, trainees)
        if len(left := open_ones(trainees)) < len(trainees):
            if left:
                self.take(step, left)
            return
        self._fill_buffers(step, trainees, cached)
        self._begin_epoch(step.epoch)
        if self._together and self._one_by_one >= TIMED:
            self._take_together(trainees)
        else:
            self._take_one_by_one(trainees)

    def settle(self) -> None:
        """At the end of an epoch."""
        self._one_by_one = 0
        self._eager.settle()

    def _look_up(self, step: CohortStep, trainees: Sequence[Trainee]) -> ByView:
        teacher = self._eager.teacher
        if teacher is None:
            return {}
        return teacher.look_up(trainees, step.inputs.images, step.rows, step.draws, {})

    def _fill_buffers(self, step: CohortStep, trainees: Sequence[Trainee], cached: ByView) -> None:
        """Have this step read fixed memory, in which are the views of ``trainees`` alone."""
        images = {v: step.inputs.images[v] for trainee in trainees for v in trainee.needs.views}
        values = replace(step.inputs, images=images), cached
        if self._buffers is None:
            self._buffers = Buffers(values)
        else:
            self._buffers.fill(values)
        inputs, self._cached = self._buffers.values
        self._step = replace(step, inputs=inputs)

    def _begin_epoch(self, epoch: float) -> None:
        """Forget the recordings that hold another epoch."""
        if epoch != self._epoch and self._readers:
            for name in self._readers:
                self._cells[name].restart()
            self._whole, self._readers = None, set()
        self._epoch = epoch

    # --- one by one ---

    def _take_one_by_one(self, trainees: Sequence[Trainee]) -> None:
        with self._eager.closing([t for t in trainees if t.needs.teacher], "the teacher's forward pass"):
            self._computed = self._teach(trainees)
        for trainee in open_ones(trainees):
            with self._eager.closing([trainee], "a training step"):
                self._take_alone(trainee)
        self._one_by_one += all(cell.is_recorded or cell.waits for cell in self._cells.values())

    def _teach(self, trainees: Sequence[Trainee]) -> ByView:
        """The teacher's outputs, each view from its own recording."""
        teacher, outputs = self._eager.teacher, {}
        if teacher is None:
            return {}
        needs = teacher.computed_needs(trainees)
        for view in needs.views:
            if view not in self._views:
                images = self._step.inputs.images[view]
                self._views[view] = Recording(partial(teacher.compute, images, needs), self._recorder)
            with self._watch.paused():
                self._views[view].prepare()
            with teacher.watch(view).running():
                outputs[view] = self._views[view]()
        return outputs

    def _take_alone(self, trainee: Trainee) -> None:
        name = trainee.cell.id
        if name not in self._cells:
            compute = partial(self._compute, trainee)
            self._cells[name] = Recording(compute, self._recorder, trainee.streams.recorded)
        cell = self._cells[name]
        if all(view.is_recorded for view in self._views.values()):  # else their outputs have no fixed place
            with self._watch.paused():
                cell.prepare()
        with trainee.watch.running():
            trainee.begin_step(self._step.rates[name])
            cell()
            trainee.finish_step(len(self._step.inputs.target))
        if cell.waits and name not in self._waiting:
            self._waiting.add(name)
            self._warn(
                f"{trainee.cell}: its steps wait for the device, so that they are not recorded as a graph"
            )

    def _compute(self, trainee: Trainee) -> None:
        """The computation of a step of ``trainee``, from the buffers and the teacher's outputs alone."""
        teacher, inputs = self._eager.teacher, self._step.inputs
        shown = {} if teacher is None else teacher.shown(trainee, self._computed, self._cached)
        epoch_read = partial(self._readers.add, trainee.cell.id)
        batch = _Observed(**vars(self._step.batch(trainee)), epoch_read=epoch_read)
        trainee.compute(batch, inputs.images, shown, inputs.mixed)

    # --- together ---

    def _take_together(self, trainees: Sequence[Trainee]) -> None:
        recorded = [trainee for trainee in trainees if self._cells[trainee.cell.id].is_recorded]
        if not recorded or not self._record_whole(trainees, recorded):
            self._take_one_by_one(trainees)
            return
        assert self._whole is not None
        with self._eager.closing(recorded, "a training step"):
            for trainee in recorded:
                trainee.begin_step(self._step.rates[trainee.cell.id])
            self._computed = self._whole()
            for trainee in recorded:
                trainee.finish_step(len(self._step.inputs.target))
                trainee.watch.skip()
        for trainee in trainees:
            if trainee not in recorded:
                with self._eager.closing([trainee], "a training step"):
                    self._take_alone(trainee)
        if self._eager.teacher is not None:
            for view in self._views:
                self._eager.teacher.watch(view).skip()

    def _record_whole(self, trainees: Sequence[Trainee], recorded: Sequence[Trainee]) -> bool:
        """Record the step of the cells ``recorded`` as one; where that fails all go on one by one."""
        if self._whole is None:
            generators = [generator for trainee in recorded for generator in trainee.streams.recorded]
            try:
                with self._watch.paused():
                    compute = partial(self._compute_together, trainees, recorded)
                    self._whole = self._recorder.record(compute, generators)
            except KdbenchError as error:
                self._together = False
                self._warn(f"the cells of a cohort are replayed one by one: as one graph their step {error}")
        return self._together

    def _compute_together(self, trainees: Sequence[Trainee], recorded: Sequence[Trainee]) -> ByView:
        """The computation of a step of ``recorded``; returns the teacher's outputs, for all ``trainees``."""
        teacher, images = self._eager.teacher, self._step.inputs.images
        if teacher is not None:
            needs = teacher.computed_needs(trainees)
            self._computed = {view: teacher.compute(images[view], needs) for view in needs.views}
        self._recorder.side_by_side([partial(self._compute, trainee) for trainee in recorded])
        return self._computed
