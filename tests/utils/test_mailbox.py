"""What jobs on other machines send: files and messages, until they are closed."""

import pytest

from kdbench.utils.mailbox import Mailbox


@pytest.fixture
def box(tmp_path):
    return Mailbox(tmp_path / "work")


def test_files_are_written_and_read(box, tmp_path):
    assert box.read("a.pt") is None
    box.write(1, "errors/a.txt", b"why")
    box.write(1, "errors/a.txt", b"why not")
    assert box.read("errors/a.txt") == b"why not"
    assert (tmp_path / "work" / "errors" / "a.txt").read_bytes() == b"why not"


def test_messages_come_in_their_order_and_once(box):
    box.post(1, b"a")
    box.post(2, b"b")
    box.post(1, b"c")
    assert box.take() == [(1, b"a"), (2, b"b"), (1, b"c")]
    assert box.take() == []


def test_a_closed_job_changes_nothing(box):
    """It was given up, but may still run where nobody can reach it."""
    box.write(1, "a.pt", b"first")
    box.close(1)
    box.write(1, "a.pt", b"late")
    box.post(1, b"late")
    box.post(2, b"other")
    assert box.read("a.pt") == b"first"
    assert box.take() == [(2, b"other")]
