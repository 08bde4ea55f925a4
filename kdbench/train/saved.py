"""Which checkpoints are there, and how far they are: from their notes, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.utils.files import write_atomic
from kdbench.utils.text import run_name

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a cell: its suite, its name in words, the epochs that are done, and those of its recipe."""

    cell_id: str
    suite: str
    name: str
    epoch: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.name}: after epoch {self.epoch} of {self.epochs}"


def checkpoint_path(work: Path, cell_id: str) -> Path:
    """The file of a cell's training state."""
    return work / f"{cell_id}.pt"


def note_path(work: Path, cell_id: str) -> Path:
    """The file that says how far the training state is."""
    return work / f"{cell_id}.json"


def write_note(work: Path, cell: Cell, epoch: int) -> None:
    """Write how far a cell's checkpoint is. Raises OSError."""
    name = run_name(str(cell), cell.teacher, cell.student, cell.seed)
    note = Saved(cell.id, cell.suite, name, epoch, cell.recipe.epochs)
    write_atomic(note_path(work, cell.id), json.dumps(asdict(note)).encode())


def checkpoints(work: Path) -> Iterator[Saved]:
    """Every checkpoint that has a note, by id."""
    for path in sorted(work.glob("*.json")):
        if checkpoint_path(work, path.stem).is_file():
            try:
                yield Saved(**json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):  # recorded meanwhile, or another version's
                continue
