"""Results of several machines and people: one record a cell, repeated runs as reproducibility data, other schemas."""

import random

import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.report import reproducibility
from kdbench.report.leaderboard import board
from kdbench.report.load import merge, suites
from kdbench.report.render import leaderboard
from kdbench.report.tables import tables
from kdbench.report.write import write_report
from kdbench.results import store
from kdbench.results.choice import Choice, NothingChosen
from tests.support.cli_process import kdbench
from tests.support.scenarios import COLUMN, A, boards, grid, hex12, run, runs, with_ids

MONDAY, TUESDAY = "2026-01-05T10:00:00+00:00", "2026-01-06T10:00:00+00:00"


def write(folder, rows, suite="s"):
    store.append(folder / f"{suite}.csv", rows)
    return folder


def again(row, top1, run_id="again", started_utc=TUESDAY, **changes):
    """The same cell trained once more."""
    return with_ids({**row, "top1": top1, "run_id": run_id, "started_utc": started_utc, **changes})


def first(top1=70.0, **changes):
    return run("kd", top1, **{"run_id": "first", "started_utc": MONDAY, "device": "gpu A", **changes})


def repeated(*places):
    merged = merge("s", places)
    return reproducibility.frame(merged.attempts, merged.records)


# --- which row counts ---


def test_rows_of_several_folders_stand_in_one_table(tmp_path):
    write(tmp_path / "a", runs("kd", 70.0, 71.0))
    write(tmp_path / "b", runs("dkd", 72.0, 73.0))
    (b,) = [board(t, "kd") for t in tables(merge("s", [tmp_path / "a", tmp_path / "b"]).records)]
    assert b.summary["delta"]["dkd"] == 2.0


def test_only_the_chosen_rows_of_several_folders_are_merged(tmp_path):
    """A folder without such rows is no error; a report without any is, and nothing is written."""
    write(tmp_path / "a", runs("kd", 70.0, 71.0))
    write(tmp_path / "b", [*runs("dkd", 72.0, 73.0), *runs("kd", 60.0, split="holdout")])
    places, only = [tmp_path / "a", tmp_path / "b"], Choice(methods=["dkd"])
    merged = merge("s", places, only)
    assert merged.records["top1"].tolist() == merged.attempts["top1"].tolist() == [72.0, 73.0]
    assert merge("s", places, Choice(split="holdout")).records["top1"].tolist() == [60.0]
    with pytest.raises(NothingChosen, match="no row has methods rkd; the rows have methods dkd, kd"):
        write_report("s", places, tmp_path / "out", only=Choice(methods=["rkd"]))
    assert not (tmp_path / "out").exists()


def test_the_order_of_places_changes_nothing(tmp_path):
    rows = [
        {**row, "run_id": hex12(f"a{i}"), "started_utc": TUESDAY} for i, row in enumerate(grid([A], dkd=1.0))
    ]
    rows += [again(row, 60.0 + i, f"x{i}") for i, row in enumerate(rows[:4])]
    random.Random(0).shuffle(rows)
    a, b = write(tmp_path / "a", rows[:5]), write(tmp_path / "b", rows[5:])
    for one, other in zip(merge("s", [a, b]), merge("s", [b, a, b]), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert len(merge("s", [a, b]).records) == 6


def test_a_run_that_stands_in_two_places_counts_once(tmp_path):
    rows = [{**row, "run_id": hex12(f"a{i}")} for i, row in enumerate(runs("kd", 70.0, 71.0))]
    a, b = write(tmp_path / "a", rows), write(tmp_path / "b", rows[:1])
    assert merge("s", [a, b]).records["top1"].tolist() == [70.0, 71.0]
    assert repeated(a, b).empty


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ({"top1": 75.0, "started_utc": TUESDAY}, 70.0),
        ({"top1": 75.0, "started_utc": "2026-01-04T10:00:00+00:00"}, 75.0),
        ({"top1": 75.0, "started_utc": MONDAY, "run_id": "0" * 12}, 75.0),  # equal starts: by run_id
        ({"top1": 75.0, "started_utc": MONDAY, "run_id": "f" * 12}, 70.0),
        (
            {"top1": None, "started_utc": "2026-01-04T10:00:00+00:00", "status": "diverged"},
            70.0,
        ),  # ok before diverged
    ],
)
def test_of_several_places_the_first_ok_run_counts(tmp_path, other, counts):
    row = first()
    a, b = write(tmp_path / "a", [row]), write(tmp_path / "b", [again(row, **other)])
    for places in ([a, b], [b, a]):
        assert merge("s", places).records["top1"].tolist() == [counts]


def test_a_failure_elsewhere_never_hides_a_result(tmp_path):
    row = first()
    failed = again(row, None, started_utc="2026-01-01T00:00:00+00:00", status="error", error="boom")
    a, b = write(tmp_path / "a", [failed]), write(tmp_path / "b", [row])
    merged = merge("s", [a, b])
    assert merged.records["status"].tolist() == ["ok"]
    assert merged.attempts["status"].tolist() == ["error", "ok"]  # both are kept


def test_a_forced_run_replaces_the_older_one_of_its_folder(tmp_path):
    row = first(70.0)
    folder = write(tmp_path / "a", [row, again(row, 71.0, attempt=2)])
    assert merge("s", folder).records["top1"].tolist() == [71.0]
    assert repeated(folder)[["top1", "counted", "differs"]].to_numpy().tolist() == [
        [70.0, False, True],
        [71.0, True, True],
    ]


def test_the_order_of_rows_in_a_file_changes_nothing(tmp_path):
    """As after a merge of two branches, or after another tool sorted the file."""
    row = first(70.0)
    late = again(row, 71.0, attempt=2)
    same_start = again(row, 72.0, started_utc=MONDAY, attempt=2)
    for name, rows, counts in (("a", [late, row], 71.0), ("b", [same_start, row], 72.0)):
        assert merge("s", write(tmp_path / name, rows)).records["top1"].tolist() == [counts]


def test_teachers_of_different_weights_never_share_a_column(tmp_path):
    a = write(tmp_path / "a", runs("kd", 70.0, 71.0))
    b = write(tmp_path / "b", runs("kd", 60.0, 61.0, teacher_id="ffff0000"))
    (table,) = tables(merge("s", [a, b]).records)
    assert table.pairs == ["resnet56#abcd -> resnet20", "resnet56#ffff -> resnet20"]


def test_curves_are_those_of_the_run_that_counts(tmp_path):
    row = first()
    for name, it, value in (("a", row, 1.0), ("b", again(row, 71.0), 2.0)):
        write(tmp_path / name, [it])
        line = {"cell_id": row["cell_id"], "run_id": it["run_id"], "epoch": 1, "term": "loss", "value": value}
        store.append(tmp_path / name / "s.curves.csv", [line], store.CURVE_COLUMNS)
    for places in (["a", "b"], ["b", "a"]):
        assert merge("s", [tmp_path / p for p in places]).curves["value"].tolist() == [1.0]


# --- reproducibility ---


def test_only_runs_more_than_half_a_point_apart_are_listed(tmp_path):
    near, far, lost = first(70.0), first(80.0, seed=1), first(60.0, seed=2)
    a = write(tmp_path / "a", [near, far, lost])
    others = [again(near, 70.5), again(far, 79.4), again(lost, None, status="diverged")]
    b = write(tmp_path / "b", [{**row, "device": "gpu B"} for row in others])
    runs_ = repeated(a, b)
    assert runs_.groupby("seed")["differs"].first().tolist() == [False, True, True]
    assert "3 cells were trained more than once; 2 of 3" in reproducibility.sentence(runs_)
    assert reproducibility.differing(runs_) == [
        ("kd", COLUMN, "2", "[60.00], ✗", "–", "gpu A, gpu B"),
        ("kd", COLUMN, "1", "[80.00], 79.40", "0.60", "gpu A, gpu B"),
    ]


def test_the_command_merges_places_and_reports_reproducibility(tmp_path):
    row = first(80.0)
    write(tmp_path / "a", [row, first(70.0, seed=1)])
    write(tmp_path / "b", [again(row, 79.0), *runs("dkd", 82.0, 72.0)])
    done = kdbench("report", "--print", "--results", "a", "--results", "b/s.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "+2.00" in done.out  # 80 and not 79 is the kd of seed 0
    assert "1 cell was trained more than once" in " ".join(done.out.split())
    assert all(line.isprintable() and len(line) <= 80 for line in done.out.splitlines())
    folder = tmp_path / "reports" / "s"
    frame = pd.read_csv(folder / "reproducibility.csv")
    assert frame[["top1", "counted"]].to_numpy().tolist() == [[80.0, True], [79.0, False]]
    markdown = (folder / "leaderboard.md").read_text()
    assert "## Reproducibility" in markdown
    assert "[80.00], 79.00 | 1.00" in markdown
    assert "[80.00], 79.00" in (folder / "index.html").read_text()


def test_no_repeated_cell_no_words_and_an_older_file_goes(tmp_path):
    runs_ = repeated(write(tmp_path / "a", runs("kd", 70.0, 71.0)))
    (tmp_path / "reproducibility.csv").write_text("of an earlier report")
    reproducibility.save(runs_, tmp_path / "reproducibility.csv")
    assert not (tmp_path / "reproducibility.csv").exists()
    assert "Reproducibility" not in leaderboard.markdown("s", boards(tmp_path, runs("kd", 70.0)), [], runs_)


# --- places ---


def test_a_csv_file_is_a_place_and_its_suite_is_in_its_rows(tmp_path):
    write(tmp_path, runs("kd", 70.0, 71.0), suite="from-anna")
    store.append(tmp_path / "from-anna.csv", [run("kd", 50.0, suite="other")])
    assert suites(tmp_path / "from-anna.csv") == ["other", "s"]
    assert merge("s", tmp_path / "from-anna.csv").records["top1"].tolist() == [70.0, 71.0]


def test_suites_are_those_of_all_places(tmp_path):
    write(tmp_path / "a", [run()], suite="digits")
    write(tmp_path / "b", [run(suite="cifar100")], suite="x")
    assert suites([tmp_path / "a", tmp_path / "b" / "x.csv"]) == ["cifar100", "digits"]


def test_a_place_that_is_absent_is_an_error(tmp_path):
    write(tmp_path / "a", [run()])
    with pytest.raises(KdbenchError, match=r"there is no .*missing; --results takes folders"):
        merge("s", [tmp_path / "a", tmp_path / "missing"])
    with pytest.raises(KdbenchError, match="kdbench run --suite s"):
        write_report("s", tmp_path / "missing", tmp_path / "out")
    write(tmp_path / "results", [run()], suite="digits")
    with pytest.raises(KdbenchError, match="did you mean 'digits'"):
        write_report("digit", tmp_path / "results", tmp_path / "out")


def test_a_bad_file_stops_no_other_suites_report(tmp_path):
    write(tmp_path / "results", [run()], suite="torn")
    header = (tmp_path / "results" / "torn.csv").read_bytes().partition(b"\n")[0] + b"\n"
    (tmp_path / "results" / "torn.csv").write_bytes(header + b"1,2,3\n")
    (tmp_path / "results" / "digits.csv").write_bytes(b"")
    (tmp_path / "results" / "header.csv").write_bytes(header)
    write(tmp_path / "results", runs("kd", 70.0, 71.0), suite="s")
    done = kdbench("report", cwd=tmp_path)
    assert done.code == 1
    names = {path.name for path in (tmp_path / "reports").iterdir()}
    assert names == {"s", "index.html", "published.html", "_assets"}
    wrote, *failures = done.err.splitlines()
    assert wrote == "wrote reports/s/index.html and the files beside it"
    assert [line.partition(";")[0] for line in failures[:2]] == [
        "kdbench: there are no rows of suite 'digits' in results/digits.csv",
        "kdbench: there are no rows of suite 'header' in results/header.csv",
    ]
    assert failures[2].startswith("kdbench: results/torn.csv is damaged (line 2")
    assert len(failures) == 3


# --- files of other versions and tools ---


def rewritten(tmp_path, change, **options):
    """A results file of two rows, changed as a frame and written by another tool."""
    store.append(tmp_path / "right.csv", runs("kd", 70.0, 71.0))
    frame = change(pd.read_csv(tmp_path / "right.csv", dtype=str, keep_default_na=False))
    file = tmp_path / "s.csv"
    frame.to_csv(file, index=False, **options)
    return file


def test_optional_columns_may_lack_and_stand_in_another_order(tmp_path):
    spare = [column for column in store.COLUMNS if column not in store.NEEDED]
    file = rewritten(tmp_path, lambda frame: frame.drop(columns=spare)[store.NEEDED[::-1]])
    found = store.load(file)
    assert list(found.columns) == store.COLUMNS
    assert found["top1"].tolist() == [70.0, 71.0]
    assert found[spare].isna().all(axis=None)
    (b,) = [board(table, "kd") for table in tables(merge("s", tmp_path / "s.csv").records)]
    assert "70.50 ± 0.71 (2)" in leaderboard.text("s", [b], [])


def test_a_spreadsheets_line_ends_and_byte_order_mark_are_read(tmp_path):
    file = rewritten(tmp_path, lambda frame: frame, lineterminator="\r\n", encoding="utf-8-sig")
    assert store.load(file)["top1"].tolist() == [70.0, 71.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="cell_id"), "no cell_id"),
        (lambda frame: frame.rename(columns={"top1": "acc"}), "columns: acc, no top1"),
        (
            lambda frame: frame.assign(schema="99"),
            rf"newer kdbench \(schema 99, this one knows {store.SCHEMA}\); update kdbench",
        ),
        (lambda frame: frame.assign(schema="99", what=""), "newer kdbench"),  # whatever columns it may have
        (lambda frame: frame.assign(schema="0"), "schema 0"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(tmp_path, change, said):
    file = rewritten(tmp_path, change)
    before = file.read_bytes()
    with pytest.raises(KdbenchError, match=rf"s\.csv .*{said}"):
        store.load(file)
    assert file.read_bytes() == before


def test_a_newer_schema_is_refused_before_training_too(tmp_path):
    store.append(tmp_path / "s.csv", [run(schema=store.SCHEMA + 1)])
    with pytest.raises(KdbenchError, match="newer kdbench"):
        store.read(tmp_path / "s.csv")


def test_older_schemas_are_upgraded_step_by_step(tmp_path, monkeypatch):
    """Say schema 1 had ``accuracy`` in [0, 1], and schema 2 ``top1`` in percent under another name of the run."""
    monkeypatch.setattr(store, "SCHEMA", 3)
    steps = {
        1: lambda rows: rows.assign(top1=100 * rows.pop("accuracy"), schema=2),
        2: lambda rows: rows.rename(columns={"run": "run_id"}).assign(schema=3),
    }
    monkeypatch.setattr(store, "UPGRADES", steps)
    file = rewritten(
        tmp_path,
        lambda frame: (
            frame.assign(schema="1", accuracy=["0.70", "0.71"])
            .drop(columns="top1")
            .rename(columns={"run_id": "run"})
        ),
    )
    found = store.load(file)
    assert found["top1"].tolist() == pytest.approx([70.0, 71.0])
    assert found["run_id"].tolist() == [hex12("run")] * 2
    assert set(found["schema"]) == {3}


def test_rows_of_schema_1_do_not_say_which_images_they_were(tmp_path):
    """So they are read, and stand in a table of their own beside rows that do say it."""
    file = rewritten(tmp_path, lambda frame: frame.drop(columns=["split_id", "precision"]).assign(schema="1"))
    found = store.load(file)
    assert set(found["schema"]) == {store.SCHEMA}
    assert set(found["split_id"]) == {""}
    store.append(tmp_path / "new.csv", runs("dkd", 72.0, 73.0, split_id="f592eea6211a", precision="bf16"))
    both = tables(merge("s", [file, tmp_path / "new.csv"]).records)
    assert {table.dataset: table.labels for table in both} == {
        "cifar100#unknown": ["kd"],
        "cifar100#f592": ["dkd"],
    }
    assert [table.heading for table in both] == [
        f"cifar100#f592, test split, 240 epochs in bf16 (recipe {hex12('r1')})",
        f"cifar100#unknown, test split, 240 epochs (recipe {hex12('r1')})",
    ]


def test_two_data_sets_of_one_name_never_share_a_table(tmp_path):
    """Say photographs were added, and only kd was trained on all of them."""
    old, new = ({"split_id": i, "dataset": "photos"} for i in ("aaaa1111", "bbbb2222"))
    rows = runs("kd", 70.0, 71.0, **old) + runs("ce", 60.0, 61.0, **old) + runs("kd", 80.0, 81.0, **new)
    store.append(tmp_path / "s.csv", rows + runs("kd", 90.0, split="holdout", **old | {"split_id": "cccc"}))
    found = {(t.dataset, t.split): t for t in tables(store.read(tmp_path / "s.csv"))}
    assert {key: table.labels for key, table in found.items()} == {
        ("photos#aaaa", "test"): ["ce", "kd"],
        ("photos#bbbb", "test"): ["kd"],
        ("photos", "holdout"): ["kd"],
    }
    assert found["photos#aaaa", "test"].finished["top1"].max() == 71.0
    assert "photos#bbbb, test split" in found["photos#bbbb", "test"].heading
