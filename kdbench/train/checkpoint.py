"""The training state of a cell, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.plan.cells import Cell
from kdbench.utils.state_dicts import load_state


def checkpoint_path(work: Path, cell_id: str) -> Path:
    """The file of a cell's training state."""
    return work / f"{cell_id}.pt"


def resumable(work: Path, cell: Cell) -> dict[str, Any] | None:
    """The cell's checkpoint, unless there is none or the method's code changed since."""
    state = load_state(checkpoint_path(work, cell.id))
    expected = (cell.id, registry.code_hash(cell.method))
    fits = isinstance(state, dict) and (state.get("cell_id"), state.get("code")) == expected
    return state if fits else None
