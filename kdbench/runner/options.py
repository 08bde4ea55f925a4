"""Where and how a selection is run: nothing of it is part of a cell's id."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError, unknown
from kdbench.runner.trackers import KINDS
from kdbench.utils.graph_kinds import graphs_of

EXECUTORS = ("serial", "processes", "slurm", "ray")
PACKAGES = {"slurm": "submitit", "ray": "ray"}  # that an executor needs, by pip install 'kdbench[EXECUTOR]'
RAY = ("address", "gpus_per_job", "cpus_per_job", "memory_per_job")
ADDRESS = re.compile(r"auto|local|[^:/\s]+:\d{1,5}|\[[\d:a-fA-F]+\]:\d{1,5}")
AUTO = "auto"


@dataclass(frozen=True)
class RunOptions:
    """The options of a command that do not change what is trained. Folders may be given as texts.

    results: folder of rows and checkpoints. data_dir: None: KDBENCH_DATA. teacher_weights: folder of <teacher>.pth.
    teacher_split: teachers are those that are trained here on the split's training images, whatever else is at hand.
    teacher_cache: folder that keeps teachers' logits. device: auto, cpu, cuda:0, several by commas, or all.
    graphs: record CUDA graphs, as `graphs_of` takes it. workers: processes that decode streamed images. executor: one
    of `EXECUTORS`, None: as jobs and device ask. jobs: cohorts that train side by side, each in a process; auto: as
    many as suit the devices. ranks: processes that train each cohort together, with a GPU each; auto: one per GPU
    where it trains. slurm: what each job of Slurm gets, as key=value,key=value. address: of a Ray cluster: auto, local
    or HOST:PORT.
    gpus_per_job, cpus_per_job, memory_per_job: what each job of Ray gets; a GPU's share, a number and GiB.
    max_hours: stop after this time and save the state. force: train finished cells again.
    track: some of `trackers.KINDS`, by commas.
    Raises KdbenchError for a value of the wrong kind.
    """

    results: Path = Path("results")
    data_dir: Path | None = None
    plugins: Path | None = None
    teacher_weights: Path | None = None
    teacher_split: bool = False
    teacher_cache: Path | None = None
    device: str = "auto"
    graphs: str = ""
    workers: int | None = None
    executor: str | None = None
    jobs: int | str = 1
    ranks: int | str = 1
    slurm: str = ""
    address: str | None = None
    gpus_per_job: float | None = None
    cpus_per_job: int | None = None
    memory_per_job: float | None = None
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
        if self.ranks != AUTO:
            _number("ranks", self.ranks, low=1, whole=True)
        if self.executor not in (None, *EXECUTORS):
            raise unknown("executor", str(self.executor), EXECUTORS)
        if self.workers is not None:
            _number("workers", self.workers, low=0, whole=True)
        if self.max_hours is not None:
            _number("max_hours", self.max_hours, low=0)
        object.__setattr__(self, "graphs", graphs_of(self.graphs))
        for name in ("force", "teacher_split"):
            if not isinstance(getattr(self, name), bool):
                raise KdbenchError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.teacher_split and self.teacher_weights:
            raise KdbenchError("teacher_split trains the teachers here; leave out teacher_weights")
        self._check_ray()
        self._check_executor()
        self._check_ranks()
        for name in self.trackers:
            if name not in KINDS:
                raise unknown("tracker", name, KINDS)

    def _check_executor(self) -> None:
        """What its executor takes, and whether its package is there."""
        if self.executor == "serial" and self._parallel:
            raise KdbenchError(
                "the executor serial trains one cohort at a time on one device; leave out jobs and further devices, or "
                "choose the executor processes"
            )
        if self.executor in PACKAGES and self._parallel:
            raise KdbenchError(
                f"the executor {self.executor} makes each cohort a job on one device; leave out jobs and further "
                "devices"
            )
        if self.slurm_parameters and self.executor != "slurm":
            raise KdbenchError("slurm parameters need the executor slurm")
        for name in RAY if self.executor != "ray" else ():
            if getattr(self, name) is not None:
                raise KdbenchError(f"{name} needs the executor ray")
        package = PACKAGES.get(self.executor or "")
        if package and importlib.util.find_spec(package) is None:
            raise KdbenchError(
                f"the executor {self.executor} needs {package}; type `pip install 'kdbench[{self.executor}]'`"
            )

    def _check_ranks(self) -> None:
        if self.ranks == 1:
            return
        if self._parallel:
            raise KdbenchError(
                "ranks train one cohort on all GPUs; leave out jobs and further devices, or leave out ranks"
            )
        if self.device.startswith("cuda:") and self.device != "cuda:0":
            raise KdbenchError(
                f"ranks take the GPUs from the first one on, not {self.device}; choose GPUs by CUDA_VISIBLE_DEVICES"
            )
        if self.executor == "ray" and self.ranks == AUTO:
            raise KdbenchError("a job of Ray gets a GPU per rank: say how many ranks, in place of auto")

    def _check_ray(self) -> None:
        if self.address is not None and not (
            isinstance(self.address, str) and ADDRESS.fullmatch(self.address)
        ):
            raise KdbenchError(f"address must be auto, local or HOST:PORT, got {self.address!r}")
        if self.gpus_per_job is not None:
            _number("gpus_per_job", self.gpus_per_job, low=0)
            if self.gpus_per_job > 1:
                raise KdbenchError(
                    f"a cohort trains on one GPU: gpus_per_job is at most 1, got {self.gpus_per_job!r}"
                )
            if not self.gpus_per_job and self.device.startswith("cuda"):
                raise KdbenchError(f"a job on {self.device} needs a GPU; leave out gpus_per_job=0")
        if self.cpus_per_job is not None:
            _number("cpus_per_job", self.cpus_per_job, low=1, whole=True)
        if self.memory_per_job is not None:
            _number("memory_per_job", self.memory_per_job, low=0)

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
        return self._parallel or self.ranks != 1 or self.executor not in (None, "serial")


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
