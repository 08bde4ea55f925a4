"""The results file under writers that die, full disks and foreign hands."""

import csv
import fcntl
import json
import os
import resource
import signal
import sys

import numpy as np
import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.results import store
from tests.support.scenarios import hex12, run

HEADER = ",".join(store.COLUMNS) + "\n"


def ids(names):
    return [hex12(name) for name in names]


def numbered(name, number, twin=0):
    """An id for each writer (a letter of a to f) and its rows."""
    return f"{name}{number:010d}{twin}"


def row(cell_id="c0", **known):
    return run(**{"cell_id": cell_id, "top1": 50.0, **known})


# --- what is written is what is read ---


def test_columns_are_those_of_the_design():
    """The file's layout is a contract: old files must go on."""
    for column in (
        "schema cell_id suite dataset split split_id teacher teacher_id student method method_version params recipe_id "
        "seed variant default precision status top1 top5 nll ece agree_teacher kl_teacher train_top1 top1_best "
        "epochs_done final_loss train_s eval_s cohort_size img_per_s peak_mem_mb student_params extra_params macs "
        "run_id attempt started_utc kdbench git_commit git_dirty code_hash torch timm cuda device threads "
        "deterministic error"
    ).split():
        assert column in store.COLUMNS
    assert len(set(store.COLUMNS)) == len(store.COLUMNS)
    assert store.CURVE_COLUMNS == ["cell_id", "run_id", "epoch", "term", "value"]


def test_floats_survive_to_the_last_digit(tmp_path):
    draw = np.random.default_rng(0)
    values = [float(v) for v in draw.random(500) * 10.0 ** draw.integers(-30, 30, 500)]
    values += [0.1, 1 / 3, 5e-324, sys.float_info.max, -0.0]
    store.append(tmp_path / "s.csv", [row(final_loss=v) for v in values])
    assert store.read(tmp_path / "s.csv")["final_loss"].tolist() == values
    with open(tmp_path / "s.csv", newline="") as file:  # and for a reader of another kind
        assert [float(r["final_loss"]) for r in csv.DictReader(file)] == values


def test_numpys_floats_are_written_as_plain_numbers(tmp_path):
    store.append(tmp_path / "s.csv", [row(top1=np.float64(71.25), nll=np.float32(0.5))])
    found = store.read(tmp_path / "s.csv").iloc[0]
    assert (found["top1"], found["nll"]) == (71.25, 0.5)


def test_infinite_numbers_leave_a_column_of_numbers(tmp_path):
    """A diverged cell has the loss nan: the others' losses must still be numbers."""
    store.append(tmp_path / "s.csv", [row(final_loss=v) for v in (float("nan"), 1.5, float("inf"), None)])
    column = store.read(tmp_path / "s.csv")["final_loss"]
    assert column.dtype == np.float64
    assert column.isna().tolist() == [True, False, False, True]
    assert column.tolist()[1:3] == [1.5, float("inf")]
    curve = {"cell_id": hex12("c"), "run_id": hex12("r"), "epoch": 1, "term": "loss", "value": float("nan")}
    store.append(tmp_path / "c.csv", [curve, curve | {"value": 2.0}], store.CURVE_COLUMNS)
    assert store.read(tmp_path / "c.csv", store.CURVE_COLUMNS)["value"].dtype == np.float64


def test_text_that_looks_like_a_number_or_a_gap_stays_text(tmp_path):
    store.append(tmp_path / "s.csv", [row("0123e4567890", variant="nan", error="NA", run_id="007007007007")])
    found = store.read(tmp_path / "s.csv").iloc[0]
    assert found[["cell_id", "variant", "error", "run_id"]].tolist() == [
        "0123e4567890",
        "nan",
        "NA",
        "007007007007",
    ]


def test_no_value_is_an_empty_column(tmp_path):
    bare = dict.fromkeys(store.COLUMNS) | {"schema": store.SCHEMA, "cell_id": "c0", "status": "ok"}
    store.append(tmp_path / "s.csv", [bare | {"seed": 0, "top1": 0.0, "git_dirty": False}])
    with open(tmp_path / "s.csv", newline="") as file:
        (found,) = csv.DictReader(file)
    filled = {key: value for key, value in found.items() if value}
    assert filled == {
        "schema": str(store.SCHEMA), "cell_id": "c0", "status": "ok", "seed": "0", "top1": "0.0", "git_dirty": "False",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        "carriage\r\nreturn",
        'quote " and, comma',
        "tab\tand ünïcode ✗",
        "half a pair \udcff",
        "\u2028",
        "a zero\0byte, \x1b[31mcolour\x1b[0m",
    ],
)
def test_one_record_is_one_physical_line(tmp_path, text):
    store.append(tmp_path / "s.csv", [row("a", error=text), row("b", error="next")])
    raw = (tmp_path / "s.csv").read_bytes()
    assert raw.count(b"\n") == 3
    assert b"\r" not in raw
    found = store.read(tmp_path / "s.csv")
    assert found["cell_id"].tolist() == ids("ab")
    assert found["error"][1] == "next"
    assert b"\0" not in raw


def test_a_line_break_in_an_error_is_shown_escaped(tmp_path):
    store.append(tmp_path / "s.csv", [row(error="first\nsecond")])
    assert "first\\nsecond" in (tmp_path / "s.csv").read_text()


def test_params_are_canonical_json_for_every_reader(tmp_path):
    params = {"form": 'a "b" \\ c', "name": "é", "t": 4.0}
    store.append(tmp_path / "s.csv", [row(params=json.dumps(params))])
    assert json.loads(store.read(tmp_path / "s.csv")["params"][0]) == params
    assert json.loads(pd.read_csv(tmp_path / "s.csv")["params"][0]) == params


def test_a_row_that_lacks_a_column_is_not_written(tmp_path):
    with pytest.raises(KeyError):
        store.append(tmp_path / "s.csv", [{"cell_id": "c"}])
    assert not (tmp_path / "s.csv").exists()


# --- files that are not ours, or torn ---


@pytest.mark.parametrize(
    "content",
    [
        "a,b,c\n1,2,3\n",
        "a,b,c",  # no line break at all
        HEADER.replace("top1", "top_1"),
        HEADER[:-1] + ",more\n",
        "\n" + HEADER,
    ],
)
def test_a_foreign_header_is_refused_and_the_file_left_alone(tmp_path, content):
    file = tmp_path / "s.csv"
    file.write_bytes(content.encode())
    for action in (lambda: store.append(file, [row()]), lambda: store.read(file)):
        with pytest.raises(KdbenchError, match=r"s\.csv has another header.*move it aside or choose another"):
            action()
    assert file.read_bytes() == content.encode()


@pytest.mark.parametrize("cut", [1, 40, 120])
def test_a_torn_last_line_is_not_read_and_then_cut_off(tmp_path, cut):
    file = tmp_path / "s.csv"
    store.append(file, [row("a"), row("b")])
    whole = file.read_bytes()
    torn = store.encode([row("torn", error="x" * len(HEADER))], store.COLUMNS)[:cut]
    file.write_bytes(whole + torn)
    assert store.read(file)["cell_id"].tolist() == ids("ab")
    new = row("c")
    store.append(file, [new])
    assert file.read_bytes() == whole + store.encode([new], store.COLUMNS)


@pytest.mark.parametrize("cut", [0, 1, len(HEADER) - 1])
def test_a_torn_header_is_begun_anew(tmp_path, cut):
    file = tmp_path / "s.csv"
    file.write_text(HEADER[:cut])
    assert store.read(file).empty
    store.append(file, [row("a")])
    assert file.read_text().startswith(HEADER)
    assert store.read(file)["cell_id"].tolist() == ids("a")


@pytest.mark.parametrize("line", ["1,2,3" + "," * 80 + "\n", 'ok,"unclosed\n'])
def test_a_damaged_row_is_told_with_the_file(tmp_path, line):
    file = tmp_path / "s.csv"
    store.append(file, [row("a")])
    with open(file, "a") as out:
        out.write(line)
    with pytest.raises(KdbenchError, match=r"s\.csv is damaged"):
        store.read(file)


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    found = store.read(tmp_path / "s.csv")
    assert found.empty
    assert list(found.columns) == store.COLUMNS


# --- many writers, some of them killed ---


def _write(file, name, acknowledged):
    """Append rows for ever; after each, acknowledge it in a file of our own."""
    with open(acknowledged, "a") as journal:
        for number in range(10**6):
            store.append(file, [row(numbered(name, number), error="e" * 3000, nll=number / 7)])
            journal.write(f"{numbered(name, number)}\n")
            journal.flush()


def test_no_acknowledged_row_is_lost_when_writers_are_killed(tmp_path, in_child, wait_for):
    file = tmp_path / "s.csv"
    journals = {name: tmp_path / name for name in "abcd"}
    writers = [in_child(_write, file, name, journal) for name, journal in journals.items()]
    for number, writer in enumerate(writers):
        size = 40_000 * (number + 1)
        wait_for(lambda size=size: file.exists() and file.stat().st_size > size)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if number == 1:  # a half line, whatever the kill has left
            with open(file, "ab") as out:
                fcntl.flock(out, fcntl.LOCK_EX)  # as the writer held it that died in mid-row
                out.write(b"1,torn-row,tin")
    store.append(file, [row("last")])

    acknowledged = {line for journal in journals.values() for line in journal.read_text().split()}
    found = pd.read_csv(file)
    assert list(found.columns) == store.COLUMNS
    assert acknowledged <= set(found["cell_id"])
    assert found["cell_id"].is_unique
    assert found["cell_id"].iloc[-1] == hex12("last")
    rows = found.iloc[:-1]
    assert (rows["error"] == "e" * 3000).all()
    assert rows["nll"].tolist() == [int(name[1:-1]) / 7 for name in rows["cell_id"]]
    # a writer that was killed between its row and its note has one row more than notes
    assert len(rows) - len(acknowledged) in range(5)
    assert len(acknowledged) > 20


def test_writers_at_the_same_time_lose_nothing(tmp_path, in_child):
    file = tmp_path / "s.csv"

    def write(name):
        for number in range(25):
            store.append(file, [row(numbered(name, number)), row(numbered(name, number, twin=1))])

    writers = [in_child(write, name) for name in "abc"]
    for writer in writers:
        writer.join()
    found = store.read(file)["cell_id"].tolist()
    assert len(found) == len(set(found)) == 150
    assert file.read_text().count(HEADER) == 1
    for first in range(0, 150, 2):  # rows of one call stand together
        assert found[first + 1] == f"{found[first][:-1]}1"


def _append_on_a_full_disk(file, limit, report):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        store.append(file, [row("new", error="x" * 2000)])
        text = "no error"
    except KdbenchError as error:
        text = str(error)
    with open(report, "w") as out:
        out.write(text)


@pytest.mark.parametrize("room", [0, 300])
def test_a_full_disk_is_told_and_the_file_stays_whole(tmp_path, in_child, room):
    """A limit of the file's size stands for the disk; with 300 bytes of room the write is a partial one."""
    file, report = tmp_path / "s.csv", tmp_path / "report"
    store.append(file, [row("a", error="y" * 2000)])
    before = file.read_bytes()
    in_child(_append_on_a_full_disk, file, len(before) + room, report).join()
    assert file.read_bytes() == before
    assert str(file) in report.read_text()
    assert "type the same command again" in report.read_text()
    store.append(file, [row("b")])
    assert store.read(file)["cell_id"].tolist() == ids("ab")


def test_a_full_disk_leaves_no_half_header(tmp_path, in_child):
    file = tmp_path / "s.csv"
    in_child(_append_on_a_full_disk, file, 100, tmp_path / "report").join()
    assert "cannot write" in (tmp_path / "report").read_text()
    assert file.read_bytes() == b""


@pytest.mark.parametrize("kind", ["folder", "parent", "gone"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, kind):
    """The superuser may write everything, so: a folder of that name, a file as parent, a link to nowhere."""
    file = tmp_path / "r" / "s.csv"
    if kind == "folder":
        file.mkdir(parents=True)
    elif kind == "parent":
        file.parent.write_text("")
    else:
        file.parent.mkdir()
        file.symlink_to("/proc/no/such/place")
    with pytest.raises(KdbenchError, match=r"cannot write .*s\.csv \(.+\); free or fix it"):
        store.append(file, [row()])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everything")
def test_a_read_only_file_is_told(tmp_path):
    file = tmp_path / "s.csv"
    store.append(file, [row("a")])
    file.chmod(0o444)
    with pytest.raises(KdbenchError, match="Permission denied"):
        store.append(file, [row("b")])
    assert store.read(file)["cell_id"].tolist() == ids("a")
