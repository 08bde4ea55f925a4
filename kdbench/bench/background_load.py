"""Further cohorts that train while one is timed, each in its own process, as with `kdbench run --jobs`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import torch

from kdbench.bench.workload import Work, made_up
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import train_cohort
from kdbench.utils.threads import thread_share

BATCHES = 100  # a cohort, before the next begins


class BackgroundLoad:
    """``count`` processes that train cohorts of ``work`` until they are ended; all share this process's threads."""

    def __init__(self, work: Work, count: int, folder: str) -> None:
        self.folder, self.threads = folder, torch.get_num_threads()
        self.share = thread_share(self.threads, count + 1)
        spawn = multiprocessing.get_context("spawn")
        started = [spawn.Event() for _ in range(count)]
        arguments = [(work, self.share, folder, event) for event in started]
        self.processes = [spawn.Process(target=_train, args=each, daemon=True) for each in arguments]
        for process in self.processes:
            process.start()
        for process, event in zip(self.processes, started, strict=True):
            while not event.wait(1):
                if not process.is_alive():
                    raise RuntimeError(f"a background cohort ended with {process.exitcode}")
        torch.set_num_threads(self.share)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the others and give this process all threads."""
        self._send(signal.SIGSTOP)
        torch.set_num_threads(self.threads)
        yield
        torch.set_num_threads(self.share)
        self._send(signal.SIGCONT)

    def end(self) -> None:
        """Kill the processes; their results are not used."""
        for process in self.processes:
            process.kill()
            process.join()
        torch.set_num_threads(self.threads)

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)


@contextmanager
def background_load(work: Work, count: int) -> Iterator[BackgroundLoad]:
    """Train ``count`` cohorts while the block runs, then kill their processes and delete their files."""
    with tempfile.TemporaryDirectory() as folder:
        load = BackgroundLoad(work, count, folder)
        try:
            yield load
        finally:
            load.end()


class _Announce(Progress):
    def __init__(self, event: Event) -> None:
        self.event = event

    def step(self, images: int) -> None:
        self.event.set()


def _train(work: Work, share: int, folder: str, started: Any) -> None:
    tempfile.tempdir = folder
    torch.set_num_threads(share)
    while True:
        with made_up(work, BATCHES) as job:
            train_cohort(job, _Announce(started))
