"""Atomic writes: a file is complete or absent."""

import os

import pytest

from kdbench.utils.files import write_atomic


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", b"old")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_a_full_disk_is_an_oserror_and_leaves_no_litter(tmp_path, monkeypatch):
    """/dev/full refuses every byte; a temporary file that links to it is a full disk."""
    monkeypatch.setattr(os, "urandom", bytes)
    temporary = tmp_path / f".f.{'00' * 6}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "f", b"content")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_file_and_creates_folders(tmp_path):
    path = tmp_path / "a" / "b" / "f"
    for content in (b"1", b"2"):
        write_atomic(path, content)
    assert path.read_bytes() == b"2"
    assert [p.name for p in path.parent.iterdir()] == ["f"]
