"""What all trackers have in common: when they hear of a cell, and that they never stop a training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.errors import KdbenchError, first_line
from kdbench.results.schema import ROWS
from kdbench.train.callbacks import Cells, Curve, Progress
from kdbench.utils.status import Status
from kdbench.utils.text import run_name

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell

PROJECT = "kdbench"
MEASURED = [column.name for column in ROWS if column.group in ("outcome", "cost")]


class Tracker(Progress):
    """A run of the tracker per cell, logged epoch by epoch; a cell that continues from its checkpoint keeps its run.

    name: of the option and of the extra. folder: of its files, and of notes on runs that are not finished.
    A tracker that fails is named once and left out from then on.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder, self._warn = folder / self.name, warn
        self._runs: dict[str, Any] = {}
        self._logged: dict[str, int] = {}  # cell id -> the last epoch that is logged
        self._quiet = self._failed = False

    # --- what each tracker does in its own way ---

    def start(self, cell: Cell, handle: str) -> tuple[Any, str]:
        """Start a cell's run, or continue the one called ``handle`` where that is not ''; return it and its handle."""
        raise NotImplementedError

    def log(self, run: Any, epoch: int, values: Mapping[str, float]) -> None:
        """Add the values of one epoch."""
        raise NotImplementedError

    def close(self, run: Any, cell: Cell, status: Status, result: Mapping[str, float]) -> None:
        """End a run with the numbers of its row."""
        raise NotImplementedError

    # --- when it does so ---

    def plan(self, cohorts: Sequence[Cells], purpose: str = "") -> None:
        """Listen to cells of the results alone: teachers and caches have a purpose."""
        self._quiet = bool(purpose)

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Open a run per cell."""
        for cell in cells:
            self._safely(self._open, cell, done // steps)

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        """Log the epoch of each cell."""
        for cell_id, values in measured.items():
            self._safely(self._log, cell_id, epoch, values)

    def record(self, cell: Cell, row: Mapping[str, Any], curve: Curve) -> None:
        """Log what was not heard of a cell, for it trained on another machine, and close its run."""
        self._safely(self._record, cell, row, curve)

    def _safely(self, action: Callable[..., None], *arguments: Any) -> None:
        if self._quiet or self._failed:
            return
        try:
            action(*arguments)
        except Exception as error:  # a server that is gone, a full disk, ...
            self._failed = True
            self._warn(f"--track {self.name} fails and is left out from here on: {first_line(error)}")

    def _open(self, cell: Cell, done: int) -> None:
        """Open a cell's run after ``done`` epochs: where there are some, the one that its note names."""
        if cell.id in self._runs:  # its process died, or its cohort was split
            return
        note = self._note(cell)
        handle = note.read_text("utf-8") if done and note.is_file() else ""
        self._runs[cell.id], handle = self.start(cell, handle)
        self._logged[cell.id] = done
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(handle, "utf-8")

    def _log(self, cell_id: str, epoch: int, values: Mapping[str, float]) -> None:
        if epoch > self._logged[cell_id]:
            self.log(self._runs[cell_id], epoch, values)
            self._logged[cell_id] = epoch

    def _record(self, cell: Cell, row: Mapping[str, Any], curve: Curve) -> None:
        self._open(cell, 0)
        for epoch, points in itertools.groupby(curve, key=lambda point: point[0]):
            self._log(cell.id, epoch, {name: value for _, name, value in points})
        result = {name: float(row[name]) for name in MEASURED if isinstance(row[name], int | float)}
        self.close(self._runs.pop(cell.id), cell, Status(row["status"]), result)
        if row["status"] != Status.INTERRUPTED:
            self._note(cell).unlink(missing_ok=True)

    def _note(self, cell: Cell) -> Path:
        return self.folder / "unfinished" / cell.id


def title(cell: Cell) -> str:
    """The name of a cell's run: 'kd, resnet56 -> resnet20, seed 0'."""
    return run_name(str(cell), cell.teacher, cell.student, cell.seed)


def facts(cell: Cell) -> dict[str, Any]:
    """What a cell is, as flat names with plain values: recipe.lr, kd.temperature."""
    named = {
        name: getattr(cell, name) for name in ("suite", "split", "teacher", "student", "method", "variant")
    }
    recipe = {f"recipe.{name}": value for name, value in cell.recipe.identity().items()}
    parameters = {f"{cell.method}.{name}": value for name, value in cell.params.items()}
    every = {
        **named,
        "seed": cell.seed,
        "dataset": cell.dataset.shown,
        "cell_id": cell.id,
        **recipe,
        **parameters,
    }
    return {
        name: value if isinstance(value, int | float | str) else str(value) for name, value in every.items()
    }


def timestamp() -> str:
    """The time as a part of names."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def missing(name: str, package: str) -> KdbenchError:
    """The error that a tracker's package is not installed."""
    return KdbenchError(f"--track {name} needs the package {package}; type `pip install 'kdbench[{name}]'`")
