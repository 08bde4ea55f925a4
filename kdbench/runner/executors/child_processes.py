"""How processes are started that train for this one."""

from __future__ import annotations

import contextlib
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Iterator

import loky.backend.resource_tracker

# a terminal's and, as Slurm sends it to all processes of a job, that which announces the end
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Processes that are started within get no signal to stop, and import nothing from the current folder.

    In a terminal Ctrl-C goes to all processes, and only the driver may act on it. A random.py beside the user's files
    must not be Python's `random`. The trackers unblock signals when they start, so they are started first.
    """
    path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        multiprocessing.resource_tracker.ensure_running()
        loky.backend.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        del os.environ["PYTHONSAFEPATH"]
        if path is not None:
            os.environ["PYTHONSAFEPATH"] = path
