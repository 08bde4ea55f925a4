"""What runs on a node of a Ray cluster: a job whose files come from the driver and go back there.

Nothing of the driver's file system is needed: checkpoints are in a temporary folder of the node, and its `Mailbox`
has them at most a minute later.
"""

from __future__ import annotations

import contextlib
import pickle
import platform
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

import kdbench
from kdbench.errors import KdbenchError, first_line
from kdbench.models import pretrained
from kdbench.runner.executors.base import Done, train_job
from kdbench.runner.executors.ray_code import plugins_here
from kdbench.runner.executors.reports import Message, Reporter
from kdbench.teachers.accuracy import logits_path
from kdbench.train.checkpoint import checkpoint_path
from kdbench.train.job import Job
from kdbench.utils.environment import choose_device
from kdbench.utils.files import write_atomic

PAUSE = 0.5  # seconds between two reports of progress
DRAIN_POLL = 2.0  # seconds between two looks at which nodes are taken away
DRIVERS = ("git_commit", "git_dirty")  # columns of the code, which is the driver's


@dataclass(frozen=True)
class Task:
    """A job with the driver's paths, and how it trains on a node.

    number: of the job in the mailbox. device: cpu, or auto: the GPU that Ray gives it. save_every: seconds between two
    copies of its checkpoints to the driver.
    """

    job: Job
    number: int
    device: str
    threads: int
    save_every: float


def versions() -> dict[str, str]:
    """What must be the same where the driver and where a job runs; builds of torch for other devices count as equal."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "kdbench": kdbench.__version__,
        "torch": torch.__version__.partition("+")[0],
        "Ray": ray.__version__,
    }


def check_versions(driver: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise KdbenchError that names both where a version differs."""
    for name, version in driver.items():
        if here[name] != version:
            raise KdbenchError(f"it has {name} {here[name]}, the driver {version}; install the same version")


def train_on_node(
    pickled: bytes, driver: Mapping[str, str], mailbox: Any, contents: Sequence[np.ndarray | None]
) -> Done | Exception:
    """The result, or the error where the job does not fit the memory or something of the node is wrong.

    pickled: a `Task`. driver: its `versions`. contents: of `input_files`, as bytes; None for what is not there.
    SIGINT (`ray.cancel`) and SIGTERM (Slurm, to all processes) save the state and return.
    """
    stopping: list[int] = []
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: stopping.append(number))
    drained = _Drained()
    try:
        check_versions(driver, versions())
        task = pickle.loads(pickled)
        torch.set_num_threads(task.threads)
        with tempfile.TemporaryDirectory(prefix="kdbench-") as folder:
            return _train(task, mailbox, Path(folder), contents, lambda: bool(stopping) or drained())
    except torch.OutOfMemoryError as error:
        return error
    except KdbenchError as error:
        return KdbenchError(f"on node {node_name()}: {error}")


def node_name() -> str:
    """The address, host name and id of this node, as `ray list nodes` and `ray status` show them."""
    node = ray.get_runtime_context().get_node_id()
    return f"{ray.util.get_node_ip_address()} ({socket.gethostname()}, {node[:8]})"


def _train(
    task: Task,
    mailbox: Any,
    work: Path,
    contents: Sequence[np.ndarray | None],
    stop: Callable[[], bool],
) -> Done:
    device = choose_device(task.device)
    if (task.device, device) == ("auto", "cpu"):
        raise KdbenchError(
            "Ray gave the job a GPU, but torch sees none; install its driver, or say --device cpu"
        )
    courier = _Courier(task, mailbox, work)
    courier.fetch()
    job = _on_node(replace(task.job, device=device, work=work, save_every=0.0), contents)  # the courier waits
    try:
        done = train_job(job, _Progress(courier), stop)
    finally:
        courier.finish()
    for result in done.results:
        if error := result.row.get("error"):
            result.row["error"] = error.replace(str(work), str(task.job.work))
    return replace(done, source={key: value for key, value in done.source.items() if key not in DRIVERS})


def input_files(job: Job) -> list[Path]:
    """The files that the job reads: its teacher's weights and logits, and the weights that its students start from.

    The logits may not be there.
    """
    known = {cell.student_model.weights.file for cell in job.cells if cell.student_model.weights}
    started = [pretrained.folder(job.work) / name for name in sorted(known)]
    if job.teacher is None:
        return started
    cell = job.cells[0]
    mean, std = map(torch.tensor, job.teacher.model.normalisation(cell.dataset))
    return [job.teacher.path, logits_path(job.teacher, mean, std, cell.split_id, job.work), *started]


def _on_node(job: Job, contents: Sequence[np.ndarray | None]) -> Job:
    """The job with the paths of this node; the files that it reads are written there."""
    if job.plugins is not None:
        job = replace(job, plugins=plugins_here(job.plugins))
    if job.teacher is not None:
        path = job.work / f"{job.teacher.id}{job.teacher.path.suffix}"
        job = replace(job, teacher=replace(job.teacher, path=path))
    for path, content in zip(input_files(job), contents, strict=True):
        if content is not None:
            write_atomic(path, content.tobytes())
    return job


class _Courier:
    """Brings files and messages between the node's folder ``work`` and the driver's mailbox.

    A driver that is gone takes nothing any more; Ray ends this process soon.
    """

    def __init__(self, task: Task, mailbox: Any, work: Path) -> None:
        self._task, self._mailbox, self._work = task, mailbox, work
        self._names = [checkpoint_path(Path(), cell.id).name for cell in task.job.cells]
        self._pending: list[Any] = []  # calls that may not have arrived yet
        self._saved = time.monotonic()

    def fetch(self) -> None:
        """Write the checkpoints that the driver has."""
        contents = ray.get([self._mailbox.read.remote(name) for name in self._names])
        for name, content in zip(self._names, contents, strict=True):
            if content is not None:
                write_atomic(self._work / name, content)

    def post(self, messages: list[Message]) -> None:
        """Send what is reported, without waiting for its arrival."""
        self._pending.append(self._mailbox.post.remote(self._task.number, pickle.dumps(messages)))

    def save_sometimes(self) -> None:
        """`save`, unless it did so a short while ago."""
        if time.monotonic() - self._saved >= self._task.save_every:
            self.save()

    def save(self) -> None:
        """Copy the checkpoints to the driver."""
        self._arrived()  # one copy at a time is on its way
        self._write(self._work / name for name in self._names)
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Copy the checkpoints and the tracebacks of methods to the driver, and wait until all has arrived.

        A job that is finished has a checkpoint too, for the case that its result is lost with the node.
        """
        self.save()
        self._write(self._work.glob("errors/*"))
        self._arrived()

    def _write(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_file():
                name = path.relative_to(self._work).as_posix()
                self._pending.append(self._mailbox.write.remote(self._task.number, name, path.read_bytes()))

    def _arrived(self) -> None:
        """Wait for what is on its way. Where the driver's disk is full, warn and go on; where it is gone, go on."""
        pending, self._pending = self._pending, []
        try:
            ray.get(pending)
        except ray.exceptions.RayActorError:
            pass
        except ray.exceptions.RayTaskError as error:
            text = f"the driver cannot save a checkpoint ({first_line(error.cause)}); training goes on, free some space"
            self.post([("warn", (text,))])


class _Progress(Reporter):
    """Reports to the driver, and after an epoch has its checkpoints copied."""

    def __init__(self, courier: _Courier) -> None:
        super().__init__(courier.post, PAUSE)
        self._courier = courier

    def epoch(self, epoch: int, measured: Mapping[str, Mapping[str, float]]) -> None:
        super().epoch(epoch, measured)
        self._courier.save_sometimes()


class _Drained:
    """Whether this node is taken away soon, as a spot machine is: Ray gives it half a minute, and tells no task."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._looked, self._answer = time.monotonic(), False

    def __call__(self) -> bool:
        if time.monotonic() - self._looked >= DRAIN_POLL:
            self._looked = time.monotonic()
            with contextlib.suppress(Exception):  # it is no public function of Ray, and may go
                self._answer = self._node in ray._private.state.state.get_draining_nodes()
        return self._answer
