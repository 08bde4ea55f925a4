"""Jobs of a Ray cluster, on a machine or many, with or without a shared file system.

Each job is a task in a process of its own. It saves its state at the driver at most once a minute, so that it goes on
elsewhere when its node dies. The cluster may be gone with the driver: the same command goes on from the checkpoints.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from kdbench.errors import KdbenchError, first_line
from kdbench.plan.cells import Cell
from kdbench.runner.executors.base import Done
from kdbench.runner.executors.ray_cluster import check_fits, connected, here, nodes, resources_of
from kdbench.runner.executors.ray_job import Task, input_files, versions
from kdbench.runner.executors.reports import Display
from kdbench.runner.options import RunOptions
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job
from kdbench.utils.mailbox import Mailbox

POLL = 0.2  # seconds between two looks at the jobs
SAVE_EVERY = 60.0  # seconds between two copies of a job's checkpoints to the driver


@dataclass
class _Running:
    """A job that was submitted. ``lane``: the place of its progress, from when it begins."""

    ref: Any
    number: int
    lane: int | None = None


class Ray:
    """Every cohort is a task of its own; Ray chooses the node.

    work: the driver's folder of checkpoints. Raises KdbenchError where there is no cluster, or none of its nodes has
    what a job gets.
    """

    name = "ray"
    slots = 1000  # jobs that are submitted and not collected

    def __init__(self, options: RunOptions, work: Path, progress: Progress, stop: Callable[[], bool]) -> None:
        self._options, self._work, self._progress, self._stop = options, work.absolute(), progress, stop
        self._running: dict[Future[Done], _Running] = {}
        self._numbers = itertools.count()
        self._displays: list[Display] = []  # one per lane
        self._inputs: dict[Path, Any] = {}  # in the object store
        self._cancelled = False

    def __enter__(self) -> Ray:
        options = self._options
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                connected(options.address or "auto", options.plugins, options.cpus_per_job or 1)
            )
            resources = resources_of(options, nodes())
            check_fits(resources, nodes())
            self._gpus, self._cpus = resources["GPU"], resources["CPU"]
            self.jobs = max(1, int(1 / self._gpus)) if self._gpus else 1
            actor: Any = ray.remote(Mailbox)
            self._mailbox = actor.options(max_restarts=-1, max_task_retries=-1, **here()).remote(self._work)
            self._task = ray.remote(max_calls=1, max_retries=0)(_entry()).options(
                name="kdbench",
                num_gpus=self._gpus,
                num_cpus=self._cpus,
                memory=resources["memory"],
                scheduling_strategy="SPREAD",
            )
            self._stack = stack.pop_all()
        return self

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """None: jobs end with their driver."""
        return []

    def submit(self, job: Job) -> Future[Done]:
        """Queue the job; it begins when a node has what it gets."""
        number = next(self._numbers)
        device = "auto" if self._gpus and self._options.device != "cpu" else "cpu"
        task = Task(_anywhere(job), number, device, int(self._cpus), SAVE_EVERY)
        future: Future[Done] = Future()
        ref = self._task.remote(pickle.dumps(task), versions(), self._mailbox, *self._contents(job))
        self._running[future] = _Running(ref, number)
        return future

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Show progress until a job is finished; when the run stops, have all save their state."""
        while True:
            ready = self._look()
            if self._stop():
                self._cancel()
            finished = [future for future, job in self._running.items() if job.ref in ready]
            for future in finished:
                self._collect(future)
            if finished:
                return finished

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Wait until all have saved their state; after a second signal (SystemExit), end them at once."""
        with self._stack:
            if kind is None or issubclass(kind, Exception):
                self._cancel()
                while self._running:
                    ready = self._look()
                    self._running = {f: job for f, job in self._running.items() if job.ref not in ready}
            for display in self._displays:
                display.close()

    def _look(self) -> set[Any]:
        """Show what was reported, and return the tasks that are finished, after a short while if none is."""
        refs = [job.ref for job in self._running.values()]
        ready, _ = ray.wait(refs, num_returns=1, timeout=POLL)
        by_number = {job.number: job for job in self._running.values()}
        for number, parcel in ray.get(self._mailbox.take.remote()):
            if number in by_number:
                self._display(by_number[number]).show(pickle.loads(parcel))
        return set(ready)

    def _display(self, job: _Running) -> Display:
        """The job's own, of the first free lane."""
        if job.lane is None:
            used = {other.lane for other in self._running.values()}
            job.lane = next(lane for lane in itertools.count() if lane not in used)
            if job.lane == len(self._displays):
                self._displays.append(Display(self._progress.lane(job.lane)))
        return self._displays[job.lane]

    def _cancel(self) -> None:
        """Send each job SIGINT, once: it saves its state and returns."""
        if not self._cancelled:
            self._cancelled = True
            for job in self._running.values():
                ray.cancel(job.ref)

    def _collect(self, future: Future[Done]) -> None:
        """Fill the future of a finished job."""
        job = self._running.pop(future)
        if job.lane is not None:
            self._displays[job.lane].close()
        ray.get(self._mailbox.close.remote(job.number))
        outcome = _outcome(job.ref)
        if isinstance(outcome, Done):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _contents(self, job: Job) -> list[Any]:
        """The contents of `input_files` in the object store, where each file is put once; None for a missing one."""
        paths = input_files(job)
        for path in paths:
            if path not in self._inputs and path.is_file():
                self._inputs[path] = ray.put(np.fromfile(path, np.uint8))
        return [self._inputs.get(path) for path in paths]


def _anywhere(job: Job) -> Job:
    """The job with whole paths: a node's current folder is another one."""
    paths = {name: getattr(job, name) for name in ("data_dir", "work", "teacher_cache")}
    whole = {name: path.expanduser().absolute() for name, path in paths.items() if path}
    return replace(job, **whole, plugins=job.plugins and job.plugins.resolve())


def _entry() -> Callable[..., Done | Exception]:
    """The task. Ray copies it by value, so that it can say where a node lacks what kdbench imports."""

    def train(task: bytes, driver: Any, mailbox: Any, *contents: Any) -> Done | Exception:
        from kdbench.errors import KdbenchError

        try:
            from kdbench.runner.executors.ray_job import train_on_node
        except ImportError as error:
            node = ray.util.get_node_ip_address()
            return KdbenchError(f"node {node} lacks what kdbench needs: {error}; install it there")
        return train_on_node(task, driver, mailbox, contents)

    return train


def _outcome(ref: Any) -> Done | Exception:
    """What a finished task gave; where it ended before its job began, it is one that was stopped."""
    try:
        return ray.get(ref)
    except ray.exceptions.TaskCancelledError:
        return Done([], True, {})
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RuntimeEnvSetupError as error:
        return KdbenchError(f"a node cannot load kdbench's code: {first_line(error)}")
    except ray.exceptions.RayError as error:
        return BrokenExecutor(first_line(error))
