"""Random damage to a results file: the reader names the file, or gives the rows that are there; no row is ever lost."""

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import KdbenchError
from kdbench.results import store
from tests.support.scenarios import hex12, run

ROWS = [
    run(
        "kd",
        70.25 + n,
        seed=n,
        cell_id=f"{n}e{n}",
        run_id=f"a{n}",
        started_utc=f"2026-01-0{n + 1}T10:00:00+00:00",
    )
    for n in range(3)
] + [run("dkd", None, status="error", error='a "quoted", long ü\nreason', cell_id="d", run_id="d")]
WHOLE = (",".join(store.COLUMNS) + "\n").encode() + store.encode(ROWS, store.COLUMNS)
NEW = run("ce", 60.0, cell_id="f" * 12)

places = st.integers(0, len(WHOLE) - 1)
lines = st.integers(0, len(ROWS))
mangled = st.sampled_from(
    ["1.2E+11", "70,25", "OK", "", "nan", "TRUE", "-1", "1e400", "05.01.2026", "{", '"', "\x1a", "٣"]
)


def flip(data, at, byte):
    at %= len(data) or 1
    return data[:at] + bytes([byte]) + data[at + 1 :]


def edit_lines(change):
    def act(data, *arguments):
        found = data.splitlines(keepends=True)
        return b"".join(change(found, *arguments)) if found else data

    return act


def mangle(data, line, column, text):
    try:
        rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return data
    if not rows or not rows[line % len(rows)]:
        return data
    row = rows[line % len(rows)]
    row[column % len(row)] = text
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def fields(data, line, column, twice):
    """A value of a line once more, or left out."""

    def change(found):
        parts = found[line % len(found)].split(b",")
        at = column % len(parts)
        found[line % len(found)] = b",".join(parts[:at] + parts[at : at + 1] * (2 * twice) + parts[at + 1 :])
        return found

    return edit_lines(change)(data)


DAMAGES = st.one_of(
    st.tuples(st.just(flip), places, st.integers(0, 255)),
    st.tuples(st.just(lambda data, at: data[: at % (len(data) or 1)]), places),
    st.tuples(st.just(edit_lines(lambda f, n: f[: n % len(f)] + f[n % len(f) + 1 :])), lines),
    st.tuples(st.just(edit_lines(lambda f, n: f[:n] + f[:1] + f[n:])), lines),
    st.tuples(st.just(edit_lines(lambda f, n: f + f[n % len(f) :])), lines),
    st.tuples(st.just(fields), lines, st.integers(0, 60), st.booleans()),
    st.tuples(st.just(mangle), lines, st.integers(0, 60), mangled),
    st.tuples(
        st.just(lambda data, end: data.replace(b"\n", end)), st.sampled_from([b"\r\n", b"\r", b"\n\n", b""])
    ),
    st.tuples(
        st.just(lambda data, mark: mark + data), st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\n"])
    ),
    st.tuples(
        st.just(lambda data, tail: data + tail),
        st.sampled_from([b"\x1a", b">>>>>>> x\n", b",,,\n", b"3,x", b"\0"]),
    ),
)


def outcome(file):
    """What the two readers make of a file: frames, or errors that name it."""
    found = []
    for read in (store.read, store.load):
        try:
            found.append(read(file))
        except KdbenchError as error:
            found.append(error)
    said = [str(each) for each in found if isinstance(each, KdbenchError)]
    assert all(str(file) in text and "\n" not in text for text in said), said
    return found


def check(damages):
    data = WHOLE
    for act, *arguments in damages:
        data = act(data, *arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.csv"
        file.write_bytes(data)
        strict, loose = outcome(file)
        if isinstance(strict, pd.DataFrame):  # what `run` reads, `report` reads the same
            pd.testing.assert_frame_equal(strict, loose)
        for found in (strict, loose):
            if isinstance(found, pd.DataFrame):
                in_range(found, data)
        appends(file, data, strict)


def in_range(found, data):
    """Each row is sound; one with all of an original's bytes has its values."""
    assert list(found.columns) == store.COLUMNS
    assert found["cell_id"].str.fullmatch("[0-9a-f]{12}").all()
    assert found.loc[found["status"] == "ok", "top1"].between(0, 100).all()
    texts = data.replace(b"\r", b"\n").split(b"\n")
    original = (",".join(store.COLUMNS)).encode()
    if texts[0].removeprefix(b"\xef\xbb\xbf") == original:
        for row, line in zip(ROWS, store.encode(ROWS, store.COLUMNS).splitlines(), strict=True):
            if line in texts[1:]:
                same = found[(found["cell_id"] == row["cell_id"]) & (found["run_id"] == row["run_id"])]
                assert len(same) >= 1
                known = same[(same["status"] == row["status"]) & (same["method"] == row["method"])]
                assert (known["top1"].eq(row["top1"]) | known["top1"].isna()).any()


def appends(file, data, before):
    """Adding a row keeps every whole line; the file then reads as before, with the row below."""
    try:
        store.append(file, [NEW])
    except KdbenchError:
        assert file.read_bytes() == data
        return
    after = file.read_bytes()
    whole = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
    assert after.startswith(whole) or not data.removeprefix(b"\xef\xbb\xbf").strip()
    if isinstance(before, pd.DataFrame):
        found = store.read(file)
        assert found["cell_id"].tolist() == [*before["cell_id"], NEW["cell_id"]]
        assert found["top1"].tolist()[-1] == 60.0


some = st.lists(DAMAGES, min_size=1, max_size=3)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(some)
def test_damage_is_named_and_no_row_is_lost(damages):
    check(damages)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None, derandomize=True, database=None)
@given(some)
def test_much_damage_is_named_and_no_row_is_lost(damages):
    check(damages)


@pytest.mark.parametrize("cut", range(1, len(WHOLE), 7))
def test_a_file_cut_anywhere_keeps_its_whole_rows(tmp_path, cut):
    file = tmp_path / "s.csv"
    file.write_bytes(WHOLE[:cut])
    rows = WHOLE[:cut].count(b"\n") - 1
    assert len(store.read(file)) in (max(rows, 0), rows + 1)
    store.append(file, [NEW])
    assert file.read_bytes().startswith(WHOLE[:cut].rpartition(b"\n")[0])
    assert store.read(file)["cell_id"].tolist()[-1] == hex12("f" * 12)
