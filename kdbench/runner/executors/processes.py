"""Several jobs at a time, each in a process of its own with its share of the threads.

Every slot is a loky pool of one process, so that a process that dies breaks its own pool alone. A pipe leads to each
process: it reports its progress there, and saves its state and stops when the driver closes the pipe or dies.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection

import loky
import torch

from kdbench.plan.cells import Cell
from kdbench.runner.executors.base import Done, train_job
from kdbench.runner.executors.child_processes import starting
from kdbench.runner.executors.reports import Display, Message, Reporter
from kdbench.train.callbacks import Progress
from kdbench.train.job import Job
from kdbench.utils.threads import thread_share

POLL = 0.1  # seconds between two looks at progress and at whether to stop


class Processes:
    """Processes that are started when they are first used and train one job after the other.

    devices: of each process, as torch names them; the same one several times where processes share it.
    """

    name = "processes"

    def __init__(self, devices: Sequence[str], progress: Progress, stop: Callable[[], bool]) -> None:
        self.slots = len(devices)
        self.jobs = max(devices.count(device) for device in devices)
        self._stop = stop
        threads = thread_share(torch.get_num_threads(), self.slots)
        self._slots = [_Slot(device, progress.lane(k), threads) for k, device in enumerate(devices)]

    def submit(self, job: Job) -> Future[Done]:
        """Start the job in a free process."""
        slot = next(slot for slot in self._slots if slot.future is None)
        return slot.submit(job)

    def submitted(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """None: processes end with their driver."""
        return []

    def wait(self, running: Iterable[Future[Done]]) -> list[Future[Done]]:
        """Show progress until a job is finished; when the run stops, have all save their state."""
        running = list(running)
        while True:
            finished, _ = concurrent.futures.wait(running, POLL, concurrent.futures.FIRST_COMPLETED)
            for slot in self._slots:
                slot.show_progress()
                if self._stop():
                    slot.stop()
                if slot.future in finished:
                    slot.free()
            if finished:
                return list(finished)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Wait until all have saved their state; after a second signal (SystemExit), end them at once."""
        hard = kind is not None and not issubclass(kind, Exception)
        for slot in self._slots:
            slot.stop()
        for slot in self._slots:
            slot.close(hard)


class _Slot:
    """One process and the job that it trains (``future``; None: it is free)."""

    def __init__(self, device: str, progress: Progress, threads: int) -> None:
        self.future: Future[Done] | None = None
        self._device, self._display, self._threads = device, Display(progress), threads
        self._pool: loky.ProcessPoolExecutor | None = None
        self._pipe: Connection | None = None

    def submit(self, job: Job) -> Future[Done]:
        with starting():
            if self._pool is None:
                self._pipe, end = multiprocessing.Pipe()
                self._pool = loky.ProcessPoolExecutor(
                    1,
                    timeout=None,  # no process ends because it is idle
                    initializer=_begin,
                    initargs=(end, os.getpid(), self._threads),
                    env={"OMP_NUM_THREADS": str(self._threads)},  # it counts only before torch is imported
                )
            answer = self._pool.submit(_train, pickle.dumps(replace(job, device=self._device)))
        self.future = _unpickled(answer)
        return self.future

    def show_progress(self) -> None:
        """Pass on what the process has reported."""
        with contextlib.suppress(EOFError, OSError):  # it is dead or stopping
            while self._pipe is not None and self._pipe.poll():
                self._display.show(self._pipe.recv())

    def free(self) -> None:
        """The job is finished, or its process died; then the next job gets another one."""
        broken = self.future is not None and isinstance(
            self.future.exception(), concurrent.futures.BrokenExecutor
        )
        self.future = None
        self._display.close()
        if broken:
            self.close(hard=True)

    def stop(self) -> None:
        """Have the process save its state and return from its job."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def close(self, hard: bool) -> None:
        """End the process; at once where ``hard`` says so, else after its job."""
        self.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=hard)
            self._pool = None


def _unpickled(answer: Future[bytes]) -> Future[Done]:
    future: Future[Done] = Future()

    def fill(answer: Future[bytes]) -> None:
        if error := answer.exception():
            future.set_exception(error)
        else:
            future.set_result(pickle.loads(answer.result()))

    answer.add_done_callback(fill)
    return future


# --- in the process ---


class _Link:
    """The process's end of the pipe: reports progress, and knows whether to stop."""

    def __init__(self, pipe: Connection, driver: int) -> None:
        self.pipe, self.driver = pipe, driver
        self.training = threading.Lock()
        self.stopped = threading.Event()
        self.progress = Reporter(self._send, POLL)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            self.pipe.recv()  # the driver sends nothing: this returns when it closes the pipe, or dies
        self.stopped.set()
        while os.getppid() == self.driver:
            time.sleep(POLL)
        with self.training:  # nobody is left to take the results; the state is saved
            os._exit(0)

    def _send(self, messages: list[Message]) -> None:
        with contextlib.suppress(OSError):  # the driver has closed its end
            self.pipe.send(messages)


_link: _Link  # set once, when the process starts


def _begin(pipe: Connection, driver: int, threads: int) -> None:
    global _link
    torch.set_num_threads(threads)
    _link = _Link(pipe, driver)


def _train(pickled: bytes) -> bytes:
    with _link.training:
        return pickle.dumps(train_job(pickle.loads(pickled), _link.progress, _link.stopped.is_set))
