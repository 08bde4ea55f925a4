"""The real command line in a process of its own: `spawn` a fresh interpreter, or `kdbench` in a fork of this one.

A fork has torch imported already, so a battery of commands costs seconds; arguments, exit code, stdout and stderr are
the command's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

import kdbench.report.write
import kdbench.runner.ablation
import kdbench.runner.progress
import kdbench.runner.run
from kdbench.cli.main import main

# of a fresh interpreter that runs this checkout on one thread
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


class Done(NamedTuple):
    code: int
    out: str
    err: str


def _forked(action: Callable[[], object], cwd: Path) -> Done:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.chdir(cwd)
                torch.set_num_threads(1)
                action()
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        out.seek(0)
        err.seek(0)
        return Done(os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode())


def kdbench(*args: str, cwd: Path, before: Callable[[], None] = lambda: None) -> Done:
    """Run `kdbench ARGS` in a forked process; ``before`` is called in it first (limits, permissions)."""

    def act() -> None:
        sys.argv = ["kdbench", *args]
        before()
        main()

    return _forked(act, cwd)


def python(code: str, cwd: Path) -> Done:
    """Run a piece of Python in a forked process."""
    return _forked(lambda: exec(code, {}), cwd)


def spawn(*args: str, cwd: Path) -> subprocess.Popen:
    """`python -m kdbench ARGS` in a fresh interpreter, one thread."""
    command = [sys.executable, "-m", "kdbench", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def refused(done: Done, *words: str, code: int = 1) -> None:
    """One clear sentence on stderr, the exit code, no traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err + done.out
    sentences = [line for line in done.err.splitlines() if line.startswith("kdbench: ")]
    assert len(sentences) == (code == 1), done.err
    for word in words:
        assert word in done.err, done.err


def line_of(text: str, start: str) -> str:
    """The one line of a text that begins so."""
    found = [line for line in text.splitlines() if line.startswith(start)]
    assert len(found) == 1, (start, text)
    return found[0]
