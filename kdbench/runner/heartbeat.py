"""A file that a training process rewrites as long as it lives: what it trains and how far it is, for `kdbench status`.

Read without torch. A process that dies leaves its file behind; the next one of this machine removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.runner.pace import Pace, Training
from kdbench.train.callbacks import Cells, Curve, Progress
from kdbench.utils import locks
from kdbench.utils.files import write_atomic
from kdbench.utils.text import run_name

if TYPE_CHECKING:
    from kdbench.plan.cells import Cell

PAUSE = 1.0  # seconds between two writings


@dataclass(frozen=True)
class Beat:
    """What one process says of itself.

    since, updated: seconds since 1970. suite: its name. cells, recorded: how many are to be trained in all, and how
    many of them are. left: seconds for the rest, None where that is not known yet. cohorts: in words, what trains now.
    """

    pid: int
    host: str
    since: float
    updated: float
    suite: str
    cells: int
    recorded: int
    left: float | None
    cohorts: list[str] = field(default_factory=list)


class Heartbeat(Progress):
    """Writes the file in ``folder`` from `plan` or `begin` on, at most once in `PAUSE`; use it in a ``with`` statement.

    A folder that cannot be written costs the file, not the training.
    """

    def __init__(self, folder: Path, suite: str) -> None:
        self._path = folder / f"{socket.gethostname()}-{os.getpid()}.json"
        self._suite, self._since, self._written = suite, time.time(), 0.0
        self._pace, self._cells, self._recorded = Pace(), 0, 0
        self._training: dict[int, Training] = {}

    def __enter__(self) -> Heartbeat:
        for path, beat in _beats(self._path.parent):
            if not locks.alive(beat.pid, beat.host):
                _remove(path)
        return self

    def __exit__(self, *error: object) -> None:
        _remove(self._path)

    def plan(self, cohorts: Sequence[Cells], purpose: str = "") -> None:
        """Note what is to be trained."""
        self._pace.plan(list(cohorts), purpose)
        self._cells, self._recorded = 0 if purpose else sum(map(len, cohorts)), 0
        self._write()

    def record(self, cell: Cell, row: Mapping[str, Any], curve: Curve) -> None:
        """Note that a cell is done."""
        self._pace.finish(cell.id)
        self._recorded += 1
        self._write()

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Note a cohort that trains in this process."""
        self.begin_lane(0, (cells, epochs, steps, done))

    def step(self, images: int) -> None:
        """Note its step."""
        self.step_lane(0)

    def end(self) -> None:
        """Forget it."""
        self.end_lane(0)

    def lane(self, number: int) -> Progress:
        """The lane of one cohort."""
        return _Lane(self, number)

    def begin_lane(self, number: int, training: tuple[Cells, int, int, int]) -> None:
        """A cohort begins in a lane."""
        self._training[number] = self._pace.begin(*training)
        self._write()

    def step_lane(self, number: int) -> None:
        """A cohort made a step; a slow disk does not slow it down."""
        self._pace.advance(self._training[number])
        if time.monotonic() - self._written > PAUSE:
            self._write()

    def end_lane(self, number: int) -> None:
        """A cohort is over."""
        self._training.pop(number, None)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        beat = Beat(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=self._since,
            updated=time.time(),
            suite=self._suite,
            cells=self._cells,
            recorded=self._recorded,
            left=self._pace.seconds_left(),
            cohorts=[_words(training) for _, training in sorted(self._training.items())],
        )
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps(asdict(beat)).encode())


class _Lane(Progress):
    def __init__(self, heartbeat: Heartbeat, number: int) -> None:
        self._heartbeat, self._number = heartbeat, number

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        self._heartbeat.begin_lane(self._number, (cells, epochs, steps, done))

    def step(self, images: int) -> None:
        self._heartbeat.step_lane(self._number)

    def end(self) -> None:
        self._heartbeat.end_lane(self._number)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _words(training: Training) -> str:
    """'cohort 2 of 6; ce, resnet20, seed 0; kd, dkd, resnet56 -> resnet20, seed 0; epoch 9 of 30'."""
    epoch = f"epoch {training.epoch} of {training.epochs}"
    if training.purpose:
        return f"{training.purpose}, {epoch}"
    runs: dict[str, list[str]] = {}
    for cell in training.cells:
        runs.setdefault(run_name("", cell.teacher, cell.student, cell.seed), []).append(str(cell))
    words = [f"{', '.join(methods)}{where}" for where, methods in runs.items()]
    return "; ".join([*filter(None, [training.place]), *words, epoch])


def _beats(folder: Path) -> list[tuple[Path, Beat]]:
    beats = []
    for path in sorted(folder.glob("*.json")):
        try:
            beats.append((path, Beat(**json.loads(path.read_bytes()))))
        except (OSError, ValueError, TypeError):  # it ended meanwhile, or another version wrote it
            continue
    return beats


def beating(folder: Path) -> list[Beat]:
    """What the processes say that live, as far as this machine can know."""
    return [beat for _, beat in _beats(folder) if locks.alive(beat.pid, beat.host)]


def cut_off(folder: Path) -> list[Beat]:
    """What processes of this machine last said that died before all their cells were done."""
    dead = (beat for _, beat in _beats(folder) if not locks.alive(beat.pid, beat.host))
    return [beat for beat in dead if beat.recorded < beat.cells]
