"""Cells move into the archive and back as a whole, and no crash loses one of their bytes."""

import os
from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.results.choice import ALL, Choice
from kdbench.runner import forget
from kdbench.runner.paths import Paths
from kdbench.utils import locks
from tests.support.cli_process import kdbench, refused
from tests.support.scenarios import run

IDS = [name.ljust(12, "0") for name in ("a", "b", "c")]


@pytest.fixture
def results(tmp_path):
    """Three cells of tiny, the first of which was tried twice, and one of other."""
    folder = tmp_path / "results"
    paths = Paths(folder, "tiny")
    rows = [("a", "error", "ce"), ("a", "ok", "ce"), ("b", "ok", "kd"), ("c", "interrupted", "dkd")]
    blank = {"suite": "tiny", "dataset": "tiny", "pair": (None, "s")}
    for cell, status, method in rows:
        store.append(paths.rows, [run(**blank, cell_id=cell, status=status, method=method)])
        curve = {"cell_id": cell.ljust(12, "0"), "run_id": "0" * 12, "epoch": 1, "term": "loss", "value": 0.5}
        store.append(paths.curves, [curve], store.CURVE_COLUMNS)
    store.append(
        folder / "other.csv", [run(**{**blank, "suite": "other"}, cell_id="d", status="ok", method="ce")]
    )
    for cell in IDS:
        for file in forget._files(paths, [cell])[: 2 if cell != IDS[2] else 4]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{file.name} of {cell}")
    return folder


def content(folder):
    """path -> bytes of every file but locks and archives; lines of CSV files in any order."""
    held = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not {"locks", forget.FOLDER} & set(file.relative_to(folder).parts):
            data = file.read_bytes()
            held[str(file.relative_to(folder))] = sorted(data.splitlines()) if file.suffix == ".csv" else data
    return held


def archive_of(results):
    (place,) = (results / forget.FOLDER).iterdir()
    return place


def test_cells_go_as_a_whole_and_come_back(results):
    before = content(results)
    chosen = forget.select(results, "tiny", [], Choice(methods=["ce", "dkd"]))
    assert chosen == {"tiny": [IDS[0], IDS[2]]}
    assert forget.forget(results, chosen).startswith("3 rows of 2 cells are moved to ")
    left = store.read(results / "tiny.csv")
    assert list(left["cell_id"]) == [IDS[1]]
    assert set(store.read(results / "tiny.curves.csv", store.CURVE_COLUMNS)["cell_id"]) == {IDS[1]}
    assert not [name for name in content(results) if IDS[0] in name or IDS[2] in name]
    place = archive_of(results)
    assert len(store.read(place / "tiny.csv")) == 3
    assert (place / "tiny.details" / f"{IDS[0]}.npz").read_text() == f"{IDS[0]}.npz of {IDS[0]}"
    assert forget.undo(place, results).startswith("3 rows are back")
    assert content(results) == before
    assert forget.undo(place, results).startswith("0 rows are back")
    assert content(results) == before


def test_what_another_suite_needs_stays(results):
    """Suites that share a cell share its student and its checkpoint, not its details."""
    store.append(results / "other.csv", [run(cell_id=IDS[0], suite="other", status="ok", method="ce")])
    student, details = forget._files(Paths(results, "tiny"), [IDS[0]])[1::-1]
    forget.forget(results, {"tiny": [IDS[0]]})
    assert student.exists()
    assert not details.exists()
    forget.forget(results, {"other": [IDS[0]]})
    assert not student.exists()


def test_the_undo_that_is_printed_names_the_results(results):
    spaced = results.rename(results.with_name("my results"))
    said = forget.forget(spaced, {"tiny": [IDS[1]]})
    assert f"forgotten/{archive_of(spaced).name}' --results '{spaced}'` brings them back" in said


def test_a_cell_that_was_trained_again_keeps_its_newer_files(results):
    forget.forget(results, {"tiny": [IDS[1]]})
    newer = Paths(results, "tiny").details / f"{IDS[1]}.npz"
    newer.write_text("newer")
    forget.undo(archive_of(results), results)
    assert newer.read_text() == "newer"
    assert list(store.read(results / "tiny.csv")["cell_id"]).count(IDS[1]) == 1


def test_rows_come_back_below_a_line_that_was_cut_short(results):
    """The torn line is the mark of a writer that died; a whole one may lack its end."""
    forget.forget(results, {"tiny": [IDS[0]]})
    file = results / "tiny.csv"
    whole = file.read_bytes()
    for end in (whole.rstrip(b"\n"), whole + b"4,cut"):
        file.write_bytes(end)
        assert forget.undo(archive_of(results), results).startswith("2 rows are back")
        assert list(store.read(file)["cell_id"]) == [IDS[1], IDS[2], IDS[0], IDS[0]]


class Crash(BaseException):
    """The process ends here."""


def _calls(results, monkeypatch, fatal):
    """Forget a cell; the process ends before the call number ``fatal`` that changes a file."""
    count = iter(range(1000))
    with monkeypatch.context() as patch:
        for owner, name in ((os, "link"), (os, "replace"), (Path, "unlink")):
            usual = getattr(owner, name)

            def counted(*arguments, usual=usual, **named):
                if "locks" not in str(arguments[0]) and next(count) == fatal:
                    raise Crash
                return usual(*arguments, **named)

            patch.setattr(owner, name, counted)
        try:
            forget.forget(results, {"tiny": [IDS[0]]})
        except Crash:
            return False
    return True


def test_a_crash_at_any_point_loses_nothing(results, monkeypatch):
    """Whatever is gone from the results is in an archive; the same command then completes the move."""
    before, fatal, whole = content(results), 0, False
    while not whole:
        whole = _calls(results, monkeypatch, fatal)
        now = content(results)
        archived = [content(place) for place in (results / forget.FOLDER).glob("*")]
        for name, own in before.items():
            copies = [each[name] for each in archived if name in each]
            if name.endswith(".csv"):
                lines = set(now[name]).union(*copies)
                assert set(own) <= lines, (fatal, name)
            else:
                assert own in [now.get(name), *copies], (fatal, name)
        for place in (results / forget.FOLDER).glob("*"):
            if (place / "tiny.csv").exists():
                forget.undo(place, results)
        if not whole:
            assert content(results)["tiny.csv"] == before["tiny.csv"], fatal
        fatal += 1
    assert fatal > 6


def test_a_cell_that_is_being_trained_stays(results):
    before = content(results)
    with (
        locks.held(Paths(results, "tiny").locks, [IDS[0]]),
        pytest.raises(KdbenchError, match="1 of these cells are being trained"),
    ):
        forget.forget(results, {"tiny": IDS[:2]})
    assert content(results) == before


def test_a_row_that_another_process_adds_meanwhile_is_kept(results, monkeypatch):
    """It comes between the copy and the removal."""
    usual = forget._drop

    def late(*arguments):
        store.append(results / "tiny.csv", [run(suite="tiny", dataset="tiny", pair=(None, "s"), cell_id="e")])
        usual(*arguments)

    monkeypatch.setattr(forget, "_drop", late)
    forget.forget(results, {"tiny": [IDS[0]]})
    assert "e".ljust(12, "0") in set(store.read(results / "tiny.csv")["cell_id"])


@pytest.mark.parametrize(
    ("prefixes", "choice", "words"),
    [
        (["x"], ALL, "no cells in .* begins with 'x'"),
        ([""], ALL, "4 cells in "),
        ([], Choice(methods=["rkd"]), "no row has methods rkd; the rows have methods ce, dkd, kd"),
    ],
)
def test_what_chooses_nothing_is_refused(results, prefixes, choice, words):
    with pytest.raises(KdbenchError, match=words):
        forget.select(results, "", prefixes, choice)


def test_forget_on_the_command_line(results):
    place = results.parent
    refused(kdbench("forget", cwd=place), "say what to forget")
    refused(
        kdbench("forget", "--undo", "results", "--results", "nowhere", cwd=place / "results"),
        "no folder that",
    )
    assert kdbench("forget", "--suite", "tiny", "--dry-run", cwd=place).out.split() == ["tiny:", *IDS]
    done = kdbench("forget", "a", "--status", "ok", cwd=place)
    assert done.out.startswith("2 rows of 1 cells are moved to results/forgotten/")
    command = done.out.partition("`")[2].partition("`")[0].split()
    assert kdbench(*command[1:], cwd=place).out.startswith("2 rows are back in results")
    assert len(store.read(results / "tiny.csv")) == 4
