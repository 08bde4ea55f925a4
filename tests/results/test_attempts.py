"""Counting a file's rows as they are added gives what reading all of it gives, whoever adds, cuts or replaces it."""

import os

import pytest

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.results.attempts import Attempts
from tests.support.scenarios import hex12, run

A, B = hex12("a"), hex12("b")


def row(cell_id, status="ok"):
    return run(cell_id=cell_id, top1=50.0, status=status)


def counts(attempts):
    attempts.refresh()
    return [(attempts.rows(cell), attempts.tries(cell)) for cell in (A, B)]


def test_rows_are_counted_as_they_are_added(tmp_path):
    file = tmp_path / "s.csv"
    attempts = Attempts(file)
    assert counts(attempts) == [(0, 0), (0, 0)]
    store.append(file, [row(A), row(B, "interrupted")])
    assert counts(attempts) == [(1, 1), (1, 0)]
    store.append(file, [row(A, "error")])
    assert counts(attempts) == counts(Attempts(file)) == [(2, 2), (1, 0)]
    assert counts(attempts) == [(2, 2), (1, 0)]


def test_a_growing_last_line_is_counted_once(tmp_path):
    """Another process writes it in pieces: torn, then without its end, then whole."""
    file = tmp_path / "s.csv"
    store.append(file, [row(A)])
    attempts, line = Attempts(file), store.encode([row(B)], store.COLUMNS)
    for piece, rows in ((line[:30], 0), (line[30:-1], 1), (line[-1:], 1)):
        with open(file, "ab") as out:
            out.write(piece)
        assert counts(attempts) == [(1, 1), (rows, rows)]


def test_a_header_that_is_torn_has_no_rows(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("schema,cell")
    attempts = Attempts(file)
    assert counts(attempts) == [(0, 0), (0, 0)]
    store.append(file, [row(A)])
    assert counts(attempts) == [(1, 1), (0, 0)]


@pytest.mark.parametrize("longer", [False, True])
def test_a_replaced_file_is_counted_anew(tmp_path, longer):
    file, other = tmp_path / "s.csv", tmp_path / "other.csv"
    store.append(file, [row(A), row(A)])
    attempts = Attempts(file)
    counts(attempts)
    store.append(other, [row(B)] * (5 if longer else 1))
    os.replace(other, file)
    assert counts(attempts) == counts(Attempts(file))
    file.unlink()
    assert counts(attempts) == [(0, 0), (0, 0)]


def test_a_damaged_row_is_named_by_its_line(tmp_path):
    file = tmp_path / "s.csv"
    store.append(file, [row(A)] * 3)
    attempts = Attempts(file)
    counts(attempts)
    with open(file, "a") as out:
        out.write("1,2,3\n")
    with pytest.raises(KdbenchError, match=r"s\.csv is damaged \(line 5 has 3 values"):
        attempts.refresh()


def test_adding_a_row_reads_the_ends_of_the_file_alone(tmp_path, monkeypatch):
    """The cost does not grow: a megabyte of rows, of which two blocks are read."""
    file, read = tmp_path / "s.csv", []
    store.append(file, [row(A)] * 6000)
    locked = store.locked

    class Counted:
        def __init__(self, inner):
            self.inner = inner

        def read(self, *size):
            data = self.inner.read(*size)
            read.append(len(data))
            return data

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.inner.close()

    monkeypatch.setattr(store, "locked", lambda path: Counted(locked(path)))
    store.append(file, [row(B)])
    assert file.stat().st_size > 1_000_000
    assert sum(read) <= 2 * store.BLOCK
    assert counts(Attempts(file)) == [(6000, 6000), (1, 1)]


def test_a_last_line_longer_than_a_block_is_cut_or_completed(tmp_path):
    file = tmp_path / "s.csv"
    store.append(file, [row(A)] * 200)
    whole = file.read_bytes()
    long = store.encode([row(B) | {"error": "x" * 3 * store.BLOCK}], store.COLUMNS)
    for text, rows in ((b'1,"' + long, 0), (long[:-1], 1)):
        file.write_bytes(whole + text.rstrip(b"\n"))
        store.append(file, [row(A)])
        assert counts(Attempts(file)) == [(201, 201), (rows, rows)]
