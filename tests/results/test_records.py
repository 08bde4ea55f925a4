"""Attempts are reduced to one record per cell."""

import pandas as pd
import pytest

from kdbench.results import store


def _records(*attempts):
    frame = pd.DataFrame(
        [{"cell_id": cell, "status": status, "run_id": run} for cell, status, run in attempts]
    )
    frame = frame.assign(started_utc=None, attempt=1)
    return [tuple(r) for r in store.records(frame)[["cell_id", "status", "run_id"]].to_numpy()]


def test_the_last_done_row_wins_over_later_failures():
    found = _records(
        ("a", "ok", "1"),
        ("b", "error", "2"),
        ("a", "ok", "3"),
        ("a", "error", "4"),
        ("a", "interrupted", "5"),
    )
    assert sorted(found) == [("a", "ok", "3"), ("b", "error", "2")]


@pytest.mark.parametrize("status", ["ok", "diverged", "skipped"])
def test_these_are_done(status):
    assert _records(("a", status, "1"), ("a", "oom", "2")) == [("a", status, "1")]


@pytest.mark.parametrize("status", ["error", "oom", "interrupted"])
def test_these_are_tried_again_and_the_last_one_stands(status):
    assert _records(("a", "error", "1"), ("a", status, "2")) == [("a", status, "2")]
    assert _records(("a", status, "1"), ("a", "ok", "2")) == [("a", "ok", "2")]


def test_records_keep_the_order_of_the_file():
    found = _records(("c", "ok", "1"), ("a", "error", "2"), ("b", "ok", "3"), ("c", "error", "4"))
    assert [cell for cell, _, _ in found] == ["c", "a", "b"]


def test_no_rows_no_records(tmp_path):
    assert store.records(store.read(tmp_path / "s.csv")).empty


def test_suites_are_the_files_that_hold_rows(tmp_path):
    for name in ("digits.csv", "cifar100.csv", "digits.curves.csv", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "digits.details").mkdir()
    assert store.suites(tmp_path) == ["cifar100", "digits"]
    assert store.suites(tmp_path / "nowhere") == []
