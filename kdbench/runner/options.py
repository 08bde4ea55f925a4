"""Where and how a selection is run: nothing of it is part of a cell's id."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError, unknown
from kdbench.runner.trackers import KINDS

EXECUTORS = ("serial", "processes", "slurm")
AUTO = "auto"


@dataclass(frozen=True)
class RunOptions:
    """The options of a command that do not change what is trained. Folders may be given as texts.

    results: folder of rows and checkpoints. data_dir: None: KDBENCH_DATA. teacher_weights: folder of <teacher>.pth.
    teacher_cache: folder that keeps teachers' logits. device: auto, cpu, cuda:0, several by commas, or all.
    graphs: record CUDA graphs. workers: processes that decode streamed images. executor: one of `EXECUTORS`, None: as
    jobs and device ask. jobs: cohorts that train side by side, each in a process; auto: as many as suit the devices.
    slurm: what each job of Slurm gets, as key=value,key=value. max_hours: stop after this time and save the state.
    force: train finished cells again. track: some of `trackers.KINDS`, by commas.
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
    executor: str | None = None
    jobs: int | str = 1
    slurm: str = ""
    max_hours: float | None = None
    force: bool = False
    track: str = ""

    def __post_init__(self) -> None:
        for name in ("results", "data_dir", "plugins", "teacher_weights", "teacher_cache"):
            object.__setattr__(self, name, _folder(name, getattr(self, name)))
        if not isinstance(self.device, str):
            raise KdbenchError(f"device is a text like auto, cpu or cuda:0, got {self.device!r}")
        if self.jobs != AUTO:
            _number("jobs", self.jobs, low=1, whole=True)
        if self.executor not in (None, *EXECUTORS):
            raise unknown("executor", str(self.executor), EXECUTORS)
        if self.executor == "serial" and self._parallel:
            raise KdbenchError(
                "the executor serial trains one cohort at a time on one device; leave out jobs and further devices, or "
                "choose the executor processes"
            )
        if self.workers is not None:
            _number("workers", self.workers, low=0, whole=True)
        if self.max_hours is not None:
            _number("max_hours", self.max_hours, low=0)
        for name in ("graphs", "force"):
            if not isinstance(getattr(self, name), bool):
                raise KdbenchError(f"{name} must be True or False, got {getattr(self, name)!r}")

        for name in self.trackers:
            if name not in KINDS:
                raise unknown("tracker", name, KINDS)
        if self.executor == "slurm" and self._parallel:
            raise KdbenchError(
                "the executor slurm makes each cohort a job on one device; leave out jobs and further devices"
            )
        if self.slurm_parameters and self.executor != "slurm":
            raise KdbenchError("slurm parameters need the executor slurm")

    @property
    def slurm_parameters(self) -> dict[str, int | str]:
        """``slurm`` by name; whole numbers as such."""
        if not isinstance(self.slurm, str):
            raise KdbenchError(f"slurm is a text like partition=gpu,timeout_min=600, got {self.slurm!r}")
        parameters: dict[str, int | str] = {}
        for part in filter(None, self.slurm.split(",")):
            key, equals, value = (text.strip() for text in part.partition("="))
            if not (key and equals and value):
                raise KdbenchError(f"slurm takes key=value,key=value, such as partition=gpu, got {part!r}")
            parameters[key] = int(value) if value.isdecimal() else value
        return parameters

    @property
    def trackers(self) -> list[str]:
        """``track`` as names, each once."""
        if not isinstance(self.track, str):
            raise KdbenchError(f"track is a text like tensorboard,wandb, got {self.track!r}")
        return list(dict.fromkeys(name.strip() for name in self.track.split(",") if name.strip()))

    @property
    def _parallel(self) -> bool:
        """Whether several cohorts may train at a time."""
        return self.jobs != 1 or self.device == "all" or "," in self.device

    @property
    def elsewhere(self) -> bool:
        """Whether cohorts may train in other processes than this one."""
        return self._parallel or self.executor not in (None, "serial")


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
