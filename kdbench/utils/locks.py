"""Lock files, one per cell, held by the process that trains it and released by the kernel however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kdbench.errors import KdbenchError

POLL = 0.5  # seconds between two looks at a lock


def _acquire(path: Path, wait: bool) -> int | None:
    """Open and lock a file, and return its descriptor; None if another process holds it and ``wait`` is false."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                return None
            raise
        try:
            same = os.fstat(file).st_ino == os.stat(path).st_ino
        except FileNotFoundError:
            same = False
        if same:
            _write_note(file)
            return file
        os.close(file)  # its last holder removed it meanwhile: lock the new file


def _write_note(file: int) -> None:
    """Write who holds the lock, for `running`. On a full disk the lock is held without the note."""
    note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
    with contextlib.suppress(OSError):
        if os.fstat(file).st_size:  # of an empty file too, ext4 would wait for the disk when it is closed
            os.ftruncate(file, 0)
        os.write(file, note.encode())


@contextlib.contextmanager
def held(folder: Path, names: Iterable[str], wait: bool = False) -> Iterator[list[str]]:
    """Hold the locks of those ``names`` that are free (all of them with ``wait``) and yield these names.

    Raises KdbenchError when ``folder`` cannot be written.
    """
    files: dict[str, int] = {}
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                file = _acquire(folder / f"{name}.lock", wait)
                if file is not None:
                    files[name] = file
        except OSError as error:
            lockless = error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
            what = "file locks do not work in" if lockless else "cannot write"
            raise KdbenchError(
                f"{what} {folder} ({error.strerror}); choose another --results folder"
            ) from error
        yield list(files)
    finally:
        for name, file in files.items():
            with contextlib.suppress(OSError):
                (folder / f"{name}.lock").unlink(missing_ok=True)
            os.close(file)


def wait_for(folder: Path, names: Iterable[str], stop: Callable[[], bool]) -> None:
    """Return when no other process holds a lock of ``names`` any more, or when ``stop`` says so."""
    for name in names:
        while not stop():
            with held(folder, [name]) as free:
                if free:
                    break
            time.sleep(POLL)


PROBE = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("locked")
"""


def check(folder: Path) -> None:
    """Raise KdbenchError where a lock in ``folder`` does not keep another process out, so that cells train twice.

    Some mounts of NFS and Lustre refuse locks or grant them to everybody. Both processes are on this machine: a mount
    whose locks hold on each machine alone passes.
    """
    name = f"probe-{socket.gethostname()}-{os.getpid()}"
    with held(folder, [name]) as mine:
        command = [sys.executable, "-I", "-S", "-c", PROBE, str(folder / f"{name}.lock")]
        probe = subprocess.run(command, capture_output=True, encoding="utf-8") if mine else None
    if probe is None or probe.stdout.strip() != "locked":
        raise KdbenchError(
            f"file locks do not work in {folder}: a second process got a lock that was held; choose a --results folder "
            "on a file system with locks (NFS: v4 or lockd; Lustre: mounted with -o flock)"
        )


def running(folder: Path) -> dict[str, dict]:
    """Map the name of every held lock to its note: pid, host and start (``since``, seconds since the epoch).

    Locks of another host count as held. Only the notes are read: to ask the kernel would mean to hold each lock for a
    moment, in which a run would skip the cell.
    """
    notes = {}
    for path in sorted(folder.glob("*.lock")):
        try:
            note = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if note.keys() == {"pid", "host", "since"} and alive(note["pid"], note["host"]):
            notes[path.stem] = note
    return notes


def alive(pid: int, host: str) -> bool:
    """Whether a process lives; one of another host is taken to."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
