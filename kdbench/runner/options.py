"""Where and how a selection is run: nothing of it is part of a cell's id."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError


@dataclass(frozen=True)
class RunOptions:
    """The options of a command that do not change what is trained. Folders may be given as texts.

    results: folder of rows and checkpoints. data_dir: None: KDBENCH_DATA. teacher_weights: folder of <teacher>.pth.
    teacher_cache: folder that keeps teachers' logits. device: auto, cpu or cuda:0. graphs: record CUDA graphs.
    workers: processes that decode streamed images. jobs: cohorts that train side by side, each in a process.
    max_hours: stop after this time and save the state. force: train finished cells again.
    Raises KdbenchError for a value of the wrong kind.
    """

    results: Path = Path("results")
    data_dir: Path | None = None
    plugins: Path | None = None
    teacher_weights: Path | None = None
    teacher_cache: Path | None = None
    device: str = "auto"
    graphs: bool = False
    workers: int | None = None
    jobs: int = 1
    max_hours: float | None = None
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("results", "data_dir", "plugins", "teacher_weights", "teacher_cache"):
            object.__setattr__(self, name, _folder(name, getattr(self, name)))
        _number("jobs", self.jobs, low=1, whole=True)
        if self.workers is not None:
            _number("workers", self.workers, low=0, whole=True)
        if self.max_hours is not None:
            _number("max_hours", self.max_hours, low=0)
        if not isinstance(self.device, str):
            raise KdbenchError(f"device is a text like auto, cpu or cuda:0, got {self.device!r}")
        for name in ("graphs", "force"):
            if not isinstance(getattr(self, name), bool):
                raise KdbenchError(f"{name} must be True or False, got {getattr(self, name)!r}")


NAMES = frozenset(option.name for option in fields(RunOptions))


def _folder(name: str, value: Any) -> Path | None:
    if value is None and name != "results":
        return None
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise KdbenchError(f"{name} must be the path of a folder, got {value!r}")
    return Path(value)


def _number(name: str, value: Any, low: int, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not (low <= value < math.inf):
        kind = "a whole number" if whole else "a number"
        raise KdbenchError(f"{name} must be {kind} of at least {low}, got {value!r}")
