"""Further processes that train cohorts of the same run beside this one, each with its share of the processor's threads.

Small students do not keep many threads busy: two cohorts on one core each are done sooner than one after the other on
two. A helper reads what to train from its standard input and takes whatever cohort is free; the end of that input,
even by the death of its parent, tells it to save its state and leave.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from kdbench.utils.threads import thread_share


@contextlib.contextmanager
def crew(jobs: int, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[None]:
    """Have ``jobs`` - 1 helpers train by ``request``, the arguments of `run.help_out`, beside what the block does.

    Leaves when all have ended, which ``stop`` hastens. This process has its share of the threads meanwhile.
    """
    threads = torch.get_num_threads()
    share = thread_share(threads, jobs)
    # OMP's own variable: it must be set before torch is imported. Ctrl-C in a terminal reaches the parent alone.
    # -P and the parent's path: else a random.py in the folder where it was started would be the helper's `random`.
    start = (
        f"import sys; sys.path[:] = {sys.path!r}; from kdbench.runner.executors.processes import main; main()"
    )
    helpers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", start],
            stdin=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(share)},
            start_new_session=True,
        )
        for _ in range(jobs - 1)
    ]
    try:
        torch.set_num_threads(share)
        for helper in helpers:
            _write(helper, pickle.dumps(request))
        yield
        while not stop() and any(helper.poll() is None for helper in helpers):
            time.sleep(0.1)
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            _close(helper)
        for helper in helpers:
            helper.wait()


def _write(helper: subprocess.Popen, message: bytes) -> None:
    assert helper.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended already: its cohorts are left to the others
        helper.stdin.write(message)
        helper.stdin.flush()


def _close(helper: subprocess.Popen) -> None:
    assert helper.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        helper.stdin.close()


def _leave_with_parent() -> None:
    os.read(0, 1)  # returns at the end of the input only
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Train what standard input asks for, in a helper."""
    from kdbench.runner.run import help_out

    request = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    help_out(**request)
