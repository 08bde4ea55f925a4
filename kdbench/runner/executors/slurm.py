"""Jobs of a Slurm cluster, submitted by submitit as arrays; they go on without the driver.

A note in the results' .work/slurm says which job trains which cells. It stays until their rows are written, so that the
same command, typed again after its driver died, collects the jobs that are queued, running or finished. Ctrl-C leaves
them running. A job that Slurm stops (time-out, preemption) saves its state and is queued again.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from kdbench.errors import KdbenchError, first_line
from kdbench.plan.cells import Cell
from kdbench.runner.executors.base import Done, train_job
from kdbench.runner.heartbeat import Heartbeat
from kdbench.runner.paths import Paths
from kdbench.runner.submitted import is_alive, load_submitit, read_notes
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job
from kdbench.utils.environment import choose_device
from kdbench.utils.files import write_atomic
from kdbench.utils.hashing import digest

POLL = 1.0  # seconds between two looks at the jobs
DEFAULTS = {"timeout_min": 24 * 60, "slurm_signal_delay_s": 120}
REQUEUES = 1000  # of a job whose time is over


class Slurm:
    """Every cohort is a job of its own.

    parameters: submitit's, and cluster: slurm, or local for processes of this machine. device: what the job chooses on
    its node. Raises KdbenchError where submitit or Slurm is not there or a parameter is not known.
    """

    name, jobs = "slurm", 1
    slots = 1000  # jobs that are submitted and not collected

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, Any],
        device: str,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        cluster = parameters.get("cluster", "slurm")
        self._folder, self._device, self._progress, self._stop = folder.absolute(), device, progress, stop
        self._submitit = load_submitit()
        self._engine = _engine(self._submitit, self._folder, parameters, cluster)
        self._local = cluster == "local"
        self._waiting: list[tuple[Future[Done], Job]] = []
        self._running: dict[Future[Done], tuple[Any, Path]] = {}
        self._collected: list[Path] = []  # notes of jobs whose rows are being written

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cohorts of these cells that an earlier driver has submitted."""
        by_id = {cell.id: cell for cell in cells}
        notes = [note["cells"] for note in read_notes(self._folder)]
        return [[by_id[name] for name in names] for names in notes if by_id.keys() >= set(names)]

    def submit(self, job: Job) -> Future[Done]:
        """Take up the job that trains these cells, or submit one at the next `wait`."""
        future: Future[Done] = Future()
        path = self._note(job)
        if path.exists():
            number = json.loads(path.read_bytes())["job"]
            kind = self._submitit.LocalJob if self._local else self._submitit.SlurmJob
            self._running[future] = kind(self._folder, number), path
        else:
            self._waiting.append((future, job))
        return future

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Submit what waits as one array; return jobs as they finish, and all where the run stops."""
        self._forget_collected()
        self._submit_array()
        while not (finished := [future for future in self._running if self._finished(future)]):
            if self._stop():
                self._progress.say(
                    "the jobs go on without this command; type it again to collect their results"
                )
                finished = list(self._running)
                for future in finished:
                    future.set_exception(BrokenExecutor("left running"))
                self._running.clear()
                return finished
            time.sleep(POLL)
        for future in finished:
            self._collect(future)
        return finished

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._forget_collected()

    def _note(self, job: Job) -> Path:
        return self._folder / f"{digest(sorted(cell.id for cell in job.cells))}.json"

    def _forget_collected(self) -> None:
        """The rows of what the last `wait` returned are written by now."""
        for path in self._collected:
            path.unlink(missing_ok=True)
        self._collected.clear()

    def _submit_array(self) -> None:
        if not self._waiting:
            return
        with self._engine.batch():
            jobs = [self._engine.submit(Task(job, self._device)) for _, job in self._waiting]
        for (future, job), submitted in zip(self._waiting, jobs, strict=True):
            path = self._note(job)
            note = {"job": submitted.job_id, "cells": [cell.id for cell in job.cells], "local": self._local}
            write_atomic(path, json.dumps(note).encode())
            self._running[future] = submitted, path
        self._progress.say(
            f"{len(jobs)} jobs are queued, {jobs[0].job_id} the first one; logs in {self._folder}"
        )
        self._waiting.clear()

    def _finished(self, future: Future[Done]) -> bool:
        job, _ = self._running[future]
        if job.paths.result_pickle.exists():
            return True
        return not is_alive(job.job_id) if self._local else bool(job.done())

    def _collect(self, future: Future[Done]) -> None:
        job, path = self._running.pop(future)
        error = job.exception()
        outcome = job.result() if error is None else BrokenExecutor(first_line(error))
        if isinstance(outcome, Exception):
            path.unlink(missing_ok=True)
            future.set_exception(outcome)
        else:
            self._collected.append(path)
            future.set_result(outcome)


class Task:
    """What runs on the node: trains the job on the node's own device."""

    def __init__(self, job: Job, device: str) -> None:
        self.job, self.device = job, device

    def __call__(self) -> Done | Exception:
        """The result, or the error where the job does not fit the memory or its inputs are wrong."""
        number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        requeue = signal.getsignal(number)
        stopping: list[FrameType | None] = []
        signal.signal(number, lambda _, frame: stopping.append(frame))
        try:
            job = replace(self.job, device=choose_device(self.device))
            paths = Paths(job.work.parent, job.cells[0].suite)
            with Heartbeat(paths.running, paths.suite) as heartbeat:
                done = train_job(job, heartbeat, lambda: bool(stopping))
        except (torch.OutOfMemoryError, KdbenchError) as error:
            return error
        finally:
            signal.signal(number, requeue)
        if done.stopped and callable(requeue):
            requeue(number, stopping[0])  # submitit's handler queues the job again and ends the process
        return done

    def checkpoint(self) -> Any:
        """What submitit queues again: the same task, which goes on from its saved state."""
        return load_submitit().helpers.DelayedSubmission(self)


def _engine(submitit: Any, folder: Path, parameters: Mapping[str, Any], cluster: str) -> Any:
    """Raises KdbenchError where Slurm is not there or does not know a parameter."""
    own = submitit.AutoExecutor._valid_parameters() | {
        f"slurm_{name}" for name in submitit.SlurmExecutor._valid_parameters()
    }
    named = {
        key if key in own else f"slurm_{key}": value for key, value in parameters.items() if key != "cluster"
    }
    if unknown := sorted(key.removeprefix("slurm_") for key in named.keys() - own):
        raise KdbenchError(
            f"--slurm does not know {', '.join(unknown)}; see docs/clusters.md for what it takes"
        )
    try:
        engine = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=REQUEUES)
        engine.update_parameters(**{**DEFAULTS, **named})
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise KdbenchError(
            f"the executor slurm cannot start: {reason}; type it where sbatch works"
        ) from error
    return engine
