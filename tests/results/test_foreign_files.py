"""Results files as spreadsheets, editors, git and other tools leave them: read rightly, or refused with the reason."""

import csv
import gzip
import io

import pytest

from kdbench.errors import KdbenchError
from kdbench.report.load import merge, suites
from kdbench.results import store
from kdbench.runner import status
from tests.support.cli_process import kdbench
from tests.support.scenarios import hex12, run, runs

ROWS = runs("kd", 70.25, 71.0, started_utc="2026-01-05T10:00:00+00:00", git_dirty=True, default=True)
LINES = [",".join(store.COLUMNS).encode(), *store.encode(ROWS, store.COLUMNS).splitlines()]
TODAY = b"\n".join(LINES) + b"\n"
KD, DKD = ROWS[0]["cell_id"], hex12("abc")


def saved(path, content, name="s.csv"):
    (path / name).write_bytes(content)
    return path / name


def with_value(column, text, line=2):
    """The file with another text in one column of one line."""
    rows = list(csv.reader(io.StringIO(TODAY.decode(), newline="")))
    rows[line - 1][store.COLUMNS.index(column)] = text
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def needed_only():
    """The two rows with the columns that must be there and no more."""
    return (",".join(store.NEEDED) + "\n").encode() + store.encode(
        [{key: row[key] for key in store.NEEDED} for row in ROWS], store.NEEDED
    )


# --- values ---


@pytest.mark.parametrize(
    ("column", "text", "said"),
    [
        ("cell_id", "1.23457E+11", "a spreadsheet read it as a number"),
        ("teacher_id", "12345678901", "a spreadsheet read it as a number"),
        ("run_id", "1,23E+11", "a spreadsheet read it as a number"),
        ("code_hash", "ABCDEF123456", "12 hex digits in small letters"),
        ("recipe_id", "cell00000001", "12 hex digits"),
        ("setting", "0123456789a", "12 hex digits"),
        ("status", "OK", "write it as ok"),
        ("status", "okay", "did you mean 'ok'"),
        ("status", "", "is empty"),
        ("top1", "70,25", "decimal commas"),
        ("top1", "70.25%", "percent signs"),
        ("top1", "100.01", "outside its range, 0 to 100"),
        ("top5", "-1", "outside its range, 0 to 100"),
        ("agree_teacher", "inf", "outside its range, 0 to 100"),
        ("ece", "#N/A", "word for no value"),
        ("top1", "", "a row with status ok has an accuracy"),
        ("top1", "nan", "a row with status ok has an accuracy"),
        ("nll", "-0.5", "outside its range, 0 and more"),
        ("kl_teacher", "-0.01", "outside its range, 0 and more"),
        ("train_s", "-3.5", "outside its range"),
        ("student_params", "278.324,0", "decimal commas, digit groups"),
        ("macs", "1.2E+11", "let the spreadsheet read all columns as text"),
        ("seed", "", "is empty"),
        ("seed", "-1", "no whole number from 0"),
        ("seed", "0.5", "no whole number from 0"),
        ("schema", "III", "no whole number"),
        ("epochs_done", "Jan 40", "no whole number"),
        ("method", "", "is empty"),
        ("params", "{'a': 1}", "no JSON object"),
        ("params", "[1]", "no JSON object"),
        ("params", "", "is empty"),
        ("facts", '{"a":', "no JSON object"),
        ("git_dirty", "WAHR", "neither True nor False"),
        ("started_utc", "05.01.2026 10:00", "no timestamp"),
        ("started_utc", "2026-02-30T10:00:00+00:00", "no timestamp"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(tmp_path, column, text, said):
    file = saved(tmp_path, with_value(column, text, line=3))
    for read in (store.read, store.load):
        with pytest.raises(KdbenchError) as told:
            read(file)
        message = str(told.value)
        assert message.startswith(
            f"{file}, line 3, column {column}: {text!r} " if text else f"{file}, line 3, column"
        )
        assert said in message


def test_the_line_is_the_physical_one_and_others_are_counted(tmp_path):
    bad = b"\r\n".join([LINES[0], b"", LINES[0], LINES[1], LINES[2].replace(b",ok,", b",OK,")] * 2)
    with pytest.raises(
        KdbenchError, match=r"s\.csv, line 5, column status: 'OK' .*\(the first of 2 wrong values\)"
    ):
        store.load(saved(tmp_path, bad))


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("seed", "3.0", 3),
        ("top1", "7.025E+01", 70.25),
        ("kl_teacher", "-1e-16", -1e-16),
        ("ece", "100.00000000000001", 100.00000000000001),
        ("final_loss", "-inf", float("-inf")),
        ("git_dirty", "TRUE", True),
        ("started_utc", "2026-01-05 11:00:00+01:00", "2026-01-05T10:00:00+00:00"),
        ("started_utc", "2026-01-05T10:00:00Z", "2026-01-05T10:00:00+00:00"),
        ("variant", "NA", "NA"),
        ("setting", "12e345678901", "12e345678901"),
    ],
)
def test_another_tools_way_to_write_a_value_is_read(tmp_path, column, text, value):
    assert store.read(saved(tmp_path, with_value(column, text)))[column].tolist()[0] == value


def test_failed_rows_need_no_accuracy_and_attempts_may_repeat(tmp_path):
    rows = [
        run("kd", None, status=s, cell_id=KD, attempt=n) for n, s in enumerate(("error", "oom", "diverged"))
    ]
    store.append(tmp_path / "s.csv", rows)
    assert store.read(tmp_path / "s.csv")["cell_id"].tolist() == [KD] * 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{KD},{KD},1.5,loss,2.0", "line 2, column epoch: '1.5'"),
        (f"{KD},{KD},1,loss,2;0", "line 2, column value: '2;0'"),
        (f"1.2E+11,{KD},1,loss,2.0", "line 2, column cell_id"),
        (f"{KD},{KD},1,loss", "damaged .line 2 has 4 values, the header 5"),
    ],
)
def test_curves_are_checked_too(tmp_path, line, said):
    file = saved(tmp_path, f"{','.join(store.CURVE_COLUMNS)}\n{line}\n".encode())
    with pytest.raises(KdbenchError, match=rf"s\.csv.*{said}"):
        store.read(file, store.CURVE_COLUMNS)


# --- the last line ---


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("complete", [True, False])
def test_line_ends_of_any_system_are_read_and_kept(tmp_path, end, mark, complete):
    file = saved(tmp_path, mark + end.join(LINES) + end * complete)
    assert store.read(file)["top1"].tolist() == [70.25, 71.0]
    store.append(file, [run("dkd", 72.0)])
    assert store.read(file)["top1"].tolist() == [70.25, 71.0, 72.0]
    content = file.read_bytes()
    assert content.startswith(mark + end.join(LINES) + end)
    assert content.count(end) == 4
    assert len(content.replace(end, b"").splitlines()) == 1


@pytest.mark.parametrize("text", ["", "the loss became nan in epoch 3"])
def test_a_row_that_lacks_its_line_end_is_never_cut(tmp_path, text):
    whole = TODAY + store.encode([run("dkd", None, status="error", error=text)], store.COLUMNS)
    for cut in range(1, 2 + len(text)):  # within the last column, free text, too
        file = saved(tmp_path, whole[:-cut])
        assert store.read(file)["method"].tolist() == ["kd", "kd", "dkd"]
        store.append(file, [run("ce", 60.0)])
        assert store.read(file)["method"].tolist() == ["kd", "kd", "dkd", "ce"]


def test_a_line_with_an_open_quote_is_torn(tmp_path):
    torn = store.encode([run("dkd", None, status="error", error='a "quoted", long text')], store.COLUMNS)
    file = saved(tmp_path, TODAY + torn[:-12])
    assert store.read(file)["method"].tolist() == ["kd", "kd"]
    store.append(file, [run("ce", 60.0)])
    assert file.read_bytes().startswith(TODAY)
    assert store.read(file)["method"].tolist() == ["kd", "kd", "ce"]


def test_a_report_names_a_line_that_it_leaves_out(tmp_path, capsys):
    file = saved(tmp_path, TODAY[:-70])
    assert store.load(file)["top1"].tolist() == [70.25]
    assert capsys.readouterr().err == f"{file}: line 3, the last one, is cut short and left out\n"


def test_a_curves_torn_number_does_not_spoil_its_file(tmp_path):
    file = tmp_path / "c.csv"
    line = {"cell_id": KD, "run_id": KD, "epoch": 1, "term": "loss", "value": 1.25e-5}
    store.append(file, [line], store.CURVE_COLUMNS)
    whole = file.read_bytes()
    for cut in range(1, 20):
        saved(tmp_path, whole + whole[len(whole) - 45 :][:-cut].rpartition(b"\n")[2], "c.csv")
        store.append(file, [line], store.CURVE_COLUMNS)
        assert store.read(file, store.CURVE_COLUMNS)["value"].tolist()[-1] == 1.25e-5


def test_curves_of_a_run_without_a_row_are_not_shown(tmp_path):
    saved(tmp_path, TODAY)
    line = {"cell_id": KD, "run_id": hex12("run"), "epoch": 1, "term": "loss", "value": 1.5}
    lost = {**line, "run_id": hex12("killed"), "value": 0.1}
    store.append(tmp_path / "s.curves.csv", [line, lost], store.CURVE_COLUMNS)
    assert merge("s", tmp_path).curves["value"].tolist() == [1.5]


# --- files of other kinds ---

SIDES = b"<<<<<<< HEAD\n" + LINES[1] + b"\n=======\n" + LINES[2] + b"\n>>>>>>> theirs\n"
KINDS = {
    "semicolons": (TODAY.replace(b",", b";"), "separated by semicolons"),
    "tabs": (TODAY.replace(b",", b"\t"), "separated by tabs"),
    "sep line": (b"sep=,\n" + TODAY, "line 1 is 'sep=,'"),
    "utf-16": (TODAY.decode().encode("utf-16"), "encoded in UTF-16"),
    "utf-16 without mark": (TODAY.decode().encode("utf-16-le"), "UTF-16"),
    "latin-1": (
        with_value("device", "Gerät").decode().encode("latin-1"),
        r"not encoded in UTF-8 \(line 2, byte 0xe4",
    ),
    "zeros": (TODAY + b"\0" * 9, r"zero bytes \(line 4\)"),
    "gzip": (gzip.compress(TODAY), "gunzip"),
    "xlsx": (b"PK\x03\x04....", "spreadsheet"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "html": (b"<!DOCTYPE html>\n<html>", "web page"),
    "conflict": (LINES[0] + b"\n" + SIDES, "line 2: a merge of git left its conflict marker"),
    "conflict at the end": (TODAY + b">>>>>>> theirs", "line 4: a merge of git left its conflict marker"),
    "conflict at the start": (b"<<<<<<< HEAD\n" + TODAY, "line 1: a merge of git"),
    "other header inside": (TODAY + needed_only(), "line 4: a header with other columns"),
    "schemas mixed": (with_value("schema", "2", line=3), "line 3, column schema: 2 below rows of schema 5"),
    "header in a row": (TODAY[:-1] + TODAY, "line 3 has 125 values, the header 63"),
    "joined lines": (TODAY + LINES[1] + LINES[2] + b"\n", "line 4 has 125 values, the header 63"),
    "decimal comma": (TODAY.replace(b",70.25,", b",70,25,"), "line 2 has 64 values, the header 63"),
    "spaces": (TODAY.replace(b",", b", "), "the names in line 1 have spaces around them"),
    "no header": (TODAY.partition(b"\n")[2], "line 1 names no columns; was the header cut off"),
    "a column twice": (TODAY.replace(b",top5,", b",top1,"), "line 1 names top1 twice"),
    "index": (
        b"\n".join([b"," + LINES[0], b"0," + LINES[1], b"1," + LINES[2]]),
        "column 1 has values and no name",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused_with_the_reason(tmp_path, kind):
    content, said = KINDS[kind]
    file = saved(tmp_path, content)
    for read in (store.load, store.read):
        with pytest.raises(KdbenchError, match=rf"s\.csv.*{said}"):
            read(file)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "kind", ["semicolons", "tabs", "utf-16", "gzip", "lfs", "conflict at the start", "index"]
)
def test_to_such_a_file_nothing_is_added(tmp_path, kind):
    file = saved(tmp_path, KINDS[kind][0])
    with pytest.raises(KdbenchError, match=r"s\.csv"):
        store.append(file, [run()])
    assert file.read_bytes() == KINDS[kind][0]


@pytest.mark.parametrize(
    "content",
    [
        TODAY + TODAY,
        TODAY + b"\xef\xbb\xbf" + TODAY,
        TODAY.replace(b"\n", b",,,\n"),
        TODAY + b"\n" + b"," * 58 + b"\n" + TODAY,
    ],
    ids=["headers repeated", "marks repeated", "columns without a name", "lines without a value"],
)
def test_harmless_changes_are_read(tmp_path, content):
    assert set(store.load(saved(tmp_path, content))["top1"]) == {70.25, 71.0}


def test_a_column_of_ones_own_is_named(tmp_path):
    file = saved(tmp_path, b"\n".join(line + b",comment" for line in LINES) + b"\n")
    with pytest.raises(KdbenchError, match=r"columns that kdbench does not know \(comment\); delete them"):
        store.load(file)
    with pytest.raises(KdbenchError, match=r"has another header .*; delete comment, move it aside or"):
        store.read(file)


def test_a_folder_or_a_dead_link_in_place_of_a_file_is_told(tmp_path):
    (tmp_path / "s.csv").mkdir()
    (tmp_path / "t.csv").symlink_to("gone")
    with pytest.raises(KdbenchError, match=r"s\.csv is a folder"):
        store.read(tmp_path / "s.csv")
    with pytest.raises(KdbenchError, match="link to a file that is not there"):
        store.load(tmp_path / "t.csv")


# --- folders and places ---


RECORDED = "  methods kd; pairs resnet56:resnet20; seeds 0, 1; epochs 240; splits test"  # as status says it


def test_what_other_programs_leave_in_a_folder_is_no_suite(tmp_path):
    for name in "._s.csv .~lock.s.csv# ~$s.csv s.csv.schema2 s.csv~ #s.csv# .#s.csv s.CURVES.csv".split():
        saved(tmp_path, b"junk", name)
    saved(tmp_path, TODAY, "s.CSV")
    assert store.suites(tmp_path) == suites(tmp_path) == ["s"]
    assert merge("s", tmp_path).records["top1"].tolist() == [70.25, 71.0]
    assert status.status(tmp_path) == f"s: 2 ok\n{RECORDED}"


def test_a_place_named_twice_counts_once(tmp_path):
    forced = [{**row, "top1": 80.0, "run_id": hex12("b"), "attempt": 2} for row in ROWS]
    file = saved(tmp_path, TODAY + store.encode(forced, store.COLUMNS))
    (tmp_path / "link.csv").symlink_to(file)
    merged = merge("s", [file, tmp_path / "link.csv"])
    assert merged.records["top1"].tolist() == [80.0, 80.0]  # the last of one place, not the first of two
    assert len(merged.attempts) == 4


def test_one_bad_file_hides_no_other_from_status(tmp_path):
    (tmp_path / "results").mkdir()
    saved(tmp_path / "results", TODAY, "good.csv")
    saved(tmp_path / "results", with_value("status", "OK"), "bad.csv")
    done = kdbench("status", cwd=tmp_path)
    assert done.code == 1
    assert done.out == f"bad: cannot be read\ngood: 2 ok\n{RECORDED}\n"
    assert done.err.startswith("kdbench: results/bad.csv, line 2, column status: 'OK'")


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("status",),
        ("teachers", "list"),
        ("export", "abc", "o.pth"),
        ("ablate", "kd"),
        ("run", "--dry-run"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "X.CSV", "there.txt"])
def test_a_file_where_a_folder_belongs_is_refused_at_once(tmp_path, command, name):
    saved(tmp_path, TODAY, "there.txt")
    done = kdbench(*command, "--results", name, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert f"--results takes a folder here, and {name} is a file or named like one" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.txt"]


def test_report_reads_a_file_whatever_its_name(tmp_path):
    saved(tmp_path, TODAY, "RESULTS.CSV")
    line = {"cell_id": KD, "run_id": hex12("run"), "epoch": 1, "term": "loss", "value": 1.5}
    store.append(tmp_path / "RESULTS.curves.CSV", [line], store.CURVE_COLUMNS)
    assert merge("s", tmp_path / "RESULTS.CSV").curves["value"].tolist() == [1.5]
    done = kdbench("report", "--print", "--results", "RESULTS.CSV", cwd=tmp_path)
    assert (done.code, done.err) == (0, "wrote reports/s/index.html and the files beside it\n")
