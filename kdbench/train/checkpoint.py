"""The training state of a cell, on disk, and a note beside it that says how far it is, for readers without torch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench import registry
from kdbench.plan.cells import Cell
from kdbench.plan.cohorts import Position
from kdbench.train import saved
from kdbench.utils.state_dicts import load_state, save_state

checkpoint_path = saved.checkpoint_path


class Saver:
    """Writes the training states of a cohort into ``work``, in the background.

    every: seconds between two saves that are not forced. warn: is told once of a write that failed (a full disk ...);
    training goes on.
    """

    def __init__(self, work: Path, every: float, warn: Callable[[str], None]) -> None:
        self._work, self._every, self._warn, self._warned = work, every, warn, False
        self._saved_at = -math.inf
        self._writing: Future[None] | None = None

    @property
    def is_due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self._saved_at >= self._every

    def save(self, states: Sequence[tuple[Cell, dict[str, Any]]]) -> None:
        """Copy the states and have them written; a write that is not finished is waited for first."""
        self.finish()
        self._saved_at = time.monotonic()
        copies = [(cell, copied(state)) for cell, state in states]
        there = None
        if torch.cuda.is_initialized():  # copies from a GPU are only under way
            there = torch.cuda.Event()
            there.record()
        thread = ThreadPoolExecutor(1)
        self._writing = thread.submit(self._write, copies, there)
        thread.shutdown(wait=False)

    def _write(self, states: Sequence[tuple[Cell, dict[str, Any]]], there: torch.cuda.Event | None) -> None:
        if there is not None:
            there.synchronize()
        for cell, state in states:
            save_state(checkpoint_path(self._work, cell.id), state)
            saved.write_note(self._work, cell, state["epoch"])

    def finish(self) -> None:
        """Wait until all is written."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except OSError as error:
            if not self._warned:
                self._warn(
                    f"cannot save a checkpoint in {self._work} ({error.strerror}); training goes on, but a crash "
                    "would lose it: free some space"
                )
            self._warned = True


def copied(value: Any) -> Any:
    """Copy a nest of dicts, lists and tuples with its tensors, on the CPU; from a GPU without waiting for it."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True, copy=True)
    if isinstance(value, dict):
        twin = copy.copy(value)  # a state dict carries an attribute
        twin.update({key: copied(item) for key, item in value.items()})
        return twin
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    return value


def remove(work: Path, cell_id: str) -> None:
    """Remove the state and the note of a cell that is recorded."""
    checkpoint_path(work, cell_id).unlink(missing_ok=True)
    saved.note_path(work, cell_id).unlink(missing_ok=True)


def resumable(work: Path, cell: Cell) -> dict[str, Any] | None:
    """The cell's checkpoint, unless there is none or the method's code changed since."""
    state = load_state(checkpoint_path(work, cell.id))
    expected = (cell.id, registry.code_hash(cell.method))
    fits = isinstance(state, dict) and (state.get("cell_id"), state.get("code")) == expected
    return state if fits else None


def positions(work: Path, cells: Iterable[Cell]) -> dict[str, Position]:
    """How far each cell's checkpoint is: (epoch, step)."""
    states = {cell.id: resumable(work, cell) for cell in cells}
    return {name: (state["epoch"], state["step"]) for name, state in states.items() if state}
