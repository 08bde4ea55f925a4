"""One step of a cohort: what its cells read, and how they take it one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from kdbench.data.augment import Draws
from kdbench.data.mixup import Mixed
from kdbench.errors import KdbenchError
from kdbench.method import Batch
from kdbench.train.cell_trainer import Trainee
from kdbench.train.teacher_outputs import ByView, SharedTeacher, versions

# Closes the trainees whose block raises, with the reason: (trainees, what they were doing).
Closing = Callable[[Sequence[Trainee], str], AbstractContextManager[None]]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The tensors of a step, on the device: what a recorded step reads from fixed buffers.

    target, index: [B] int64. progress: 0-dim. images: view -> [B, 3, H, W] in 0..1. mixed: None without mixup.
    """

    target: Tensor
    index: Tensor
    progress: Tensor
    images: Mapping[str, Tensor]
    mixed: Mixed | None


@dataclass(frozen=True, eq=False)
class CohortStep:
    """One step of all cells of a cohort.

    rows: [B] int64 on the CPU, the images' rows in the set, and the draws behind their views. epoch: as in `Batch`.
    last, rates: by cell id: whether this is the cell's last step of the epoch, and its learning rate.
    """

    inputs: Inputs
    rows: Tensor
    draws: Mapping[str, Draws]
    epoch: float
    last: Mapping[str, bool]
    rates: Mapping[str, float]

    def batch(self, trainee: Trainee) -> Batch:
        """What the method of ``trainee`` reads; the tensors are its own, whatever it does with them."""
        return Batch(
            target=self.inputs.target.clone(),
            epoch=self.epoch,
            last=self.last[trainee.cell.id],
            progress=self.inputs.progress.clone(),
            generator=trainee.streams.generator,
            sample_index=self.inputs.index.clone() if trainee.needs.index else None,
        )


class EagerSteps:
    """Steps as Python runs them. ``teacher``: None where no cell has one."""

    def __init__(self, teacher: SharedTeacher | None, closing: Closing) -> None:
        self.teacher, self.closing = teacher, closing

    def take(self, step: CohortStep, trainees: Sequence[Trainee]) -> None:
        """Train ``trainees`` by one step; a cell that raises is closed."""
        inputs = step.inputs
        computed: ByView = {}
        cached: ByView = {}
        if self.teacher is not None:
            with self.closing([t for t in trainees if t.needs.teacher], "the teacher's forward pass"):
                computed = self.teacher.compute_timed(inputs.images, self.teacher.computed_needs(trainees))
                cached = self.teacher.look_up(trainees, inputs.images, step.rows, step.draws, computed)
        for trainee in open_ones(trainees):
            shown = self.teacher.shown(trainee, computed, cached) if self.teacher is not None else {}
            before = versions(shown)
            with self.closing([trainee], "a training step"):
                trainee.step(
                    step.batch(trainee), inputs.images, shown, step.rates[trainee.cell.id], inputs.mixed
                )
            if self.teacher is not None and versions(shown) != before:
                with self.closing([trainee], "a training step"):
                    raise KdbenchError(
                        "it writes into the teacher's maps, which other methods read; take a copy"
                    )
                computed = self.teacher.compute_timed(inputs.images, self.teacher.computed_needs(trainees))

    def settle(self) -> None:
        """At the end of an epoch."""
        if self.teacher is not None:
            self.teacher.settle()


def open_ones(trainees: Sequence[Trainee]) -> list[Trainee]:
    """Those of ``trainees`` that no error has closed."""
    return [trainee for trainee in trainees if trainee.outcome is None]
