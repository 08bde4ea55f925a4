"""What becomes of cells that raise: they are closed with the reason, and the others go on."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell
from kdbench.train.cell_trainer import Trainee
from kdbench.train.collectives import RankLost
from kdbench.train.ranks import CellsFailed
from kdbench.utils.files import write_atomic
from kdbench.utils.status import Status

# Of the machine and not of the cell: out of memory, a GPU that computes no more, a rank that is gone.
NOT_OF_A_CELL = (torch.OutOfMemoryError, torch.AcceleratorError, RankLost)


class Failures:
    """Within `closing` a block may raise. ``work``: the folder in which tracebacks are kept."""

    def __init__(self, work: Path) -> None:
        self._work = work

    @contextlib.contextmanager
    def closing(self, trainees: Sequence[Trainee], what: str) -> Iterator[None]:
        """Close the cells ``trainees`` where the block raises, with the reason."""
        try:
            with self.leaving(trainees, what):
                yield
        except CellsFailed as failed:
            for trainee in trainees:
                trainee.outcome = (Status.ERROR, failed.reasons[trainee.cell.id])

    @contextlib.contextmanager
    def leaving(self, trainees: Sequence[Trainee], what: str) -> Iterator[None]:
        """As `closing` where other ranks may wait for this one: they all start anew without the cells ``trainees``."""
        try:
            yield
        except NOT_OF_A_CELL:
            raise
        except Exception as error:
            raise CellsFailed({t.cell.id: self.explain(t.cell, what, error) for t in trainees}) from error

    def explain(self, cell: Cell, what: str, error: Exception) -> str:
        """The reason in one sentence; of an exception that is not ours the traceback is kept."""
        if isinstance(error, KdbenchError):
            return f"{cell.method}: {error}"
        log = self._work / "errors" / f"{cell.id}.txt"
        with contextlib.suppress(OSError):
            write_atomic(log, traceback.format_exc().encode())
        return f"{cell.method} failed in {what}: {type(error).__name__}: {error} (traceback in {log})"
