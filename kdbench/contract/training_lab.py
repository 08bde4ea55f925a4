"""Where the training checks train: one cohort of all methods that are checked, and each method alone."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.contract.toy_suite import SUITE, TRAIN, Steps, ToyRuns
from kdbench.errors import KdbenchError
from kdbench.models import Network
from kdbench.plan.cells import Cell
from kdbench.suites import ModelSpec, Pair
from kdbench.train.cohort import Cohort
from kdbench.train.job import Result
from kdbench.utils.state_dicts import weights_digest
from kdbench.utils.status import Status

EPOCHS = 4
STEPS = TRAIN // SUITE.recipe.batch_size  # of an epoch
# no stage of the teacher has as many channels as the student's
STUDENT, TEACHER = (ModelSpec("resnet8", {"widths": widths}) for widths in ([8, 8, 8, 8], [8, 10, 10, 12]))
PAIRS = (Pair("teacher", "student"), Pair("twin", "student"))  # the second has equal shapes
TRAINED = replace(
    SUITE,
    recipe=replace(SUITE.recipe, epochs=EPOCHS, lr=0.03, schedule="onecycle", eval_every=2),
    models={"student": STUDENT, "teacher": TEACHER, "twin": STUDENT},
    pairs=PAIRS,
)


@dataclass(frozen=True)
class Alone:
    """A result, and whether the teacher's weights, buffers and mode are what they were."""

    result: Result
    untouched: bool


class Lab:
    """Trains the methods ``names`` as one cohort (kd and ce among them) and each alone; every result is kept."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(dict.fromkeys([*names, "ce", "kd"]))
        self._folder = tempfile.TemporaryDirectory(prefix="kdbench-check-")
        self._alone: dict[tuple[str, bool], Alone] = {}

    @cached_property
    def toy(self) -> ToyRuns:
        """The toy suite in which all methods are trained."""
        return ToyRuns(Path(self._folder.name), TRAINED)

    @cached_property
    def together(self) -> dict[str, Result]:
        """Method -> its result in the cohort of all, on the first pair that it does not skip."""
        planned = [name for name in self.names if self.unplanned(name) is None]
        results = self.toy.train(self.toy.cells(planned, PAIRS[0]), "together")
        again = [name for name, result in results.items() if result.row["status"] == Status.SKIPPED]
        if again:
            second = self.toy.train(self.toy.cells(["ce", "kd", *again], PAIRS[1]), "together again")
            results |= {name: second[name] for name in again}
        return results

    def unplanned(self, name: str) -> str | None:
        """Why there can be no cell of ``name``, or None: one method's mistake is not everyone's."""
        try:
            self.toy.cells([name], PAIRS[0])
        except KdbenchError as error:
            return str(error)
        return None

    def pair(self, name: str) -> Pair:
        """The pair that ``name`` was trained on."""
        cell = self.together[name].cell
        return next((pair for pair in PAIRS if pair.teacher == cell.teacher), PAIRS[0])

    def cell(self, name: str) -> Cell:
        """The planned cell of ``name``."""
        return self.toy.cells([name], self.pair(name))[0]

    def alone(self, name: str, stopped: bool) -> Alone:
        """Trained without company; ``stopped``: in the middle of the third epoch, and started again."""
        key = (name, stopped)
        if key not in self._alone:
            stops = [2 * STEPS + 1] if stopped else []
            self._alone[key] = self._trained(self.cell(name), f"alone-{name}-{stopped}", stops)
        return self._alone[key]

    def across(self, name: str, threshold: float, stops: Sequence[int]) -> Result:
        """Trained alone, the epoch ``threshold`` in the middle of the schedule, and stopped after ``stops`` steps."""
        recipe = replace(TRAINED.recipe, reference_epochs=math.ceil(2 * threshold))
        (cell,) = self.toy.cells([name], self.pair(name), suite=replace(TRAINED, recipe=recipe))
        return self._trained(cell, f"across-{name}-{threshold}-{len(stops)}", stops).result

    def _trained(self, cell: Cell, work: str, stops: Sequence[int]) -> Alone:
        """The cell alone, started again after each of ``stops`` (steps from the beginning)."""
        job, steps, untouched = self.toy.job([cell], work), Steps(), True
        for place, end in enumerate((*stops, EPOCHS * STEPS + 1)):
            if place:  # as another process would, which finds nothing that a class or a module has kept
                registry.renew(cell.method)
            cohort = Cohort(job, steps)
            before = _state(cohort.teacher)
            results, _ = cohort.run(lambda: steps.done >= end)  # noqa: B023 (called at once)
            untouched &= before == _state(cohort.teacher)
        return Alone(results[0], untouched)


def _state(teacher: Network | None) -> Any:
    if teacher is None:
        return None
    return weights_digest(teacher.state_dict()), [m.training for m in teacher.modules()], _learns(teacher)


def _learns(net: Network) -> list[bool]:
    return [p.requires_grad or p.grad is not None for p in net.parameters()]
