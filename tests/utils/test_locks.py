"""Locks between real processes, killed ones among them."""

import errno
import itertools
import os
import resource
import signal
import socket
import threading
import time

import pytest

from kdbench.errors import KdbenchError
from kdbench.utils import locks


def _hold(folder, names, ready):
    with locks.held(folder, names) as mine:
        ready.write_text(",".join(mine))
        signal.pause()


@pytest.fixture
def holder(tmp_path, in_child, wait_for):
    """Another process that holds the lock ``a``."""
    process = in_child(_hold, tmp_path / "locks", ["a"], tmp_path / "ready")
    wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text() == "a")
    return process


def test_a_lock_held_by_another_process_is_skipped(tmp_path, holder):
    with locks.held(tmp_path / "locks", ["a", "b"]) as mine:
        assert mine == ["b"]


def test_another_handle_of_the_same_process_cannot_lock_it(tmp_path):
    with locks.held(tmp_path, ["a"]), locks.held(tmp_path, ["a", "b"]) as mine:
        assert mine == ["b"]


def test_a_killed_process_lets_go(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with locks.held(tmp_path / "locks", ["a"]) as mine:
        assert mine == ["a"]


def test_an_exception_lets_go_and_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path, ["a", "b"]):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with locks.held(tmp_path, ["a", "b"]) as mine:
        assert mine == ["a", "b"]


def test_a_lock_held_by_another_is_not_removed(tmp_path, holder):
    with locks.held(tmp_path / "locks", ["a"]) as mine:
        assert mine == []
    assert locks.running(tmp_path / "locks").keys() == {"a"}


def test_running_lists_who_holds_what_since_when(tmp_path, holder):
    (tmp_path / "locks" / "stale.lock").write_text("{}")  # of a process that was killed
    notes = locks.running(tmp_path / "locks")
    assert notes.keys() == {"a"}
    assert notes["a"]["pid"] == holder.pid
    assert notes["a"]["host"] == socket.gethostname()
    assert 0 <= time.time() - notes["a"]["since"] < 60


def test_running_is_empty_after_a_kill_and_without_a_folder(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert locks.running(tmp_path / "locks") == {}
    assert locks.running(tmp_path / "nowhere") == {}


def test_listing_the_locks_does_not_block_anyone(tmp_path):
    """`kdbench status` must not hold a lock for a moment: a run that starts just then would skip the cell."""
    done = threading.Event()

    def list_locks():
        while not done.is_set():
            locks.running(tmp_path)

    watcher = threading.Thread(target=list_locks)
    watcher.start()
    try:
        for _ in range(200):
            with locks.held(tmp_path, ["a"]) as mine:
                assert mine == ["a"]
    finally:
        done.set()
        watcher.join()


def test_waiting_takes_it_when_the_other_ends(tmp_path, holder):
    timer = threading.Timer(0.1, os.kill, (holder.pid, signal.SIGKILL))
    begun = time.monotonic()
    timer.start()
    with locks.held(tmp_path / "locks", ["a"], wait=True) as mine:
        assert mine == ["a"]
        assert time.monotonic() - begun >= 0.09
    timer.join()


def _race(folder, journal, rounds):
    """Acquire and release the lock repeatedly, with a journal of the times."""
    with open(journal, "a", buffering=1) as out:
        for _ in range(rounds):
            with locks.held(folder, ["x"], wait=True):
                out.write(f"{time.monotonic_ns()} in\n")
                for _ in range(20):
                    os.getpid()
                out.write(f"{time.monotonic_ns()} out\n")


def test_racing_processes_are_never_both_inside(tmp_path, in_child):
    """The holder removes the file as it goes: one that waited for the removed file must not think it holds it."""
    journals = [tmp_path / f"journal{i}" for i in range(3)]
    racers = [in_child(_race, tmp_path / "locks", journal, 150) for journal in journals]
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    events = []
    for number, journal in enumerate(journals):
        lines = [line.split() for line in journal.read_text().splitlines()]
        assert len(lines) == 300
        events += [(int(moment), what, number) for moment, what in lines]
    events.sort()
    for entered, left in zip(events[::2], events[1::2], strict=True):
        assert (entered[1], left[1]) == ("in", "out")
        assert entered[2] == left[2]
    owners = [event[2] for event in events[::2]]
    assert any(a != b for a, b in itertools.pairwise(owners)), "they never met"


def _take_on_a_full_disk(folder, report):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with locks.held(folder, ["a"]) as mine:
        report.mkdir() if mine == ["a"] else None  # a folder needs no room for content


def test_a_full_disk_costs_the_note_not_the_lock(tmp_path, in_child):
    process = in_child(_take_on_a_full_disk, tmp_path / "locks", tmp_path / "taken")
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "taken").is_dir()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KdbenchError, match="cannot write"), locks.held(tmp_path / "file" / "locks", ["a"]):
        pass


def test_locks_that_work_leave_nothing_behind(tmp_path):
    locks.check(tmp_path / "locks")
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_lock_that_keeps_nobody_out_is_refused(tmp_path, monkeypatch):
    """As on a mount that grants every lock."""
    monkeypatch.setattr(locks.fcntl, "flock", lambda *arguments: None)
    with pytest.raises(KdbenchError, match=r"file locks do not work in .*: a second process got a lock"):
        locks.check(tmp_path)


def test_a_mount_that_refuses_locks_is_named_so(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(
        KdbenchError, match=r"file locks do not work in .* \(No locks available\); choose another"
    ):
        locks.check(tmp_path)
