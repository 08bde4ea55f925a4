"""One lock file a cell, held by the process that trains it; the kernel lets go of it however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO


def _take(path: Path, wait: bool) -> IO[str] | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "a+")  # noqa: SIM115 (it stays open: it is the lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        try:
            same = os.fstat(file.fileno()).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            same = False
        if same:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
            file.flush()
            return file
        file.close()  # its last holder removed it meanwhile: take the new one


@contextlib.contextmanager
def held(folder: Path, names: Iterable[str], wait: bool = False) -> Iterator[list[str]]:
    """Hold the locks of those ``names`` that are free (all of them with ``wait``) and yield these names."""
    files: dict[str, IO[str]] = {}
    try:
        for name in names:
            file = _take(folder / f"{name}.lock", wait)
            if file:
                files[name] = file
        yield list(files)
    finally:
        for name, file in files.items():
            (folder / f"{name}.lock").unlink(missing_ok=True)
            file.close()


def running(folder: Path) -> dict[str, dict]:
    """Name -> pid, host and start of every lock that a live process holds."""
    found = {}
    for path in sorted(folder.glob("*.lock")):
        with contextlib.suppress(OSError), open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    found[path.stem] = json.loads(file.read())
                except ValueError:
                    found[path.stem] = {}
    return found
