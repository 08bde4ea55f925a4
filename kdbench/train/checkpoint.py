"""The training state of a cell, on disk, and a note beside it that says how far it is, for readers without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.plan.cells import Cell
from kdbench.train import saved
from kdbench.utils.state_dicts import load_state, save_state

checkpoint_path = saved.checkpoint_path


def save(work: Path, cell: Cell, state: Mapping[str, Any]) -> None:
    """Write the state of a cell that trains, and its note. Raises OSError (a full disk ...)."""
    save_state(checkpoint_path(work, cell.id), state)
    saved.write_note(work, cell, state["epoch"])


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
