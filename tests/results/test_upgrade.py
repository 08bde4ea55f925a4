"""Files of an older schema: every command reads them; those that add rows name the command that rewrites them."""

import shutil

import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner.upgrade import upgrade
from tests.support.cli_process import kdbench, refused
from tests.support.scenarios import run, runs

ROWS = runs("kd", 70.25, 71.0, started_utc="2026-01-05T10:00:00+00:00", git_dirty=True, default=True)
TIMES = ["timed_steps", "cohort_s"]
LATER = {
    4: TIMES,
    3: [*TIMES, "executor", "jobs"],
    2: [*TIMES, "executor", "jobs", "setting", "facts"],
    1: [*TIMES, "executor", "jobs", "setting", "facts", "split_id", "precision"],
}  # schema -> columns it lacks


def older(path, schema, name="s.csv", rows=ROWS, backwards=False):
    """A file of that schema, as the kdbench of its time wrote it."""
    columns = [column for column in store.COLUMNS if column not in LATER[schema]]
    columns = columns[::-1] if backwards else columns
    texts = store.encode([{**{key: row[key] for key in columns}, "schema": schema} for row in rows], columns)
    path.mkdir(exist_ok=True)
    (path / name).write_bytes((",".join(columns) + "\n").encode() + texts)
    return path / name


@pytest.mark.parametrize("change", [lambda d: d, lambda d: b"\xef\xbb\xbf" + d.replace(b"\n", b"\r\n")])
def test_upgrade_makes_a_file_that_rows_are_added_to(tmp_path, change):
    file = older(tmp_path, 2, backwards=True)
    content = change(file.read_bytes())
    file.write_bytes(content)
    for action in (lambda: store.read(file), lambda: store.append(file, [run()])):
        with pytest.raises(
            KdbenchError, match=r"schema 2, .* schema 5; type `kdbench results upgrade .*s\.csv`"
        ):
            action()
    assert file.read_bytes() == content
    done = kdbench("results", "upgrade", "s.csv", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "s.csv.schema2").read_bytes() == content
    assert store.upgrade_note(file) == ""
    store.append(file, [run("dkd", 72.0)])
    assert store.read(file)["top1"].tolist() == [70.25, 71.0, 72.0]


def test_upgrade_keeps_every_backup_and_every_text(tmp_path):
    reordered = (",".join(store.NEEDED) + "\n").encode() + store.encode(
        [{key: row[key] for key in store.NEEDED} for row in ROWS], store.NEEDED
    )
    file = tmp_path / "s.csv"
    for number, name in enumerate(("s.csv.schema5", "s.csv.schema5.2", "s.csv.schema5.3")):
        file.write_bytes(reordered + b"\n" * number)
        assert store.upgrade_note(file).startswith("its columns differ, this kdbench writes schema 5")
        assert f"the old file is {tmp_path / name}" in upgrade(file)
        assert (tmp_path / name).read_bytes() == reordered + b"\n" * number
    assert store.read(file)["top1"].tolist() == [70.25, 71.0]
    assert file.read_bytes().count(b",70.25,") == 1
    assert "has schema 5 already" in upgrade(file)


def test_files_of_today_and_absent_ones_need_no_upgrade(tmp_path):
    store.append(tmp_path / "s.csv", ROWS)
    (tmp_path / "empty.csv").touch()
    assert [store.upgrade_note(tmp_path / name) for name in ("s.csv", "empty.csv", "none.csv")] == [
        "",
        "",
        "",
    ]


def test_the_command_in_the_note_can_be_pasted(tmp_path):
    file = older(tmp_path / "my results", 2)
    assert f"`kdbench results upgrade '{file}'`" in store.upgrade_note(file)


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_status_shows_an_older_file_and_names_the_command(tmp_path, schema):
    older(tmp_path / "results", schema, "old.csv")
    store.append(tmp_path / "results" / "today.csv", ROWS)
    done = kdbench("status", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    said = " ".join(done.out.split())
    recorded = "2 ok methods kd; pairs resnet56:resnet20; seeds 0, 1; epochs 240; splits test"
    assert (
        f"old: {recorded} before `kdbench run`: it has schema {schema}, this kdbench writes schema 5" in said
    )
    assert "type `kdbench results upgrade results/old.csv`" in said
    assert said.endswith(f"today: {recorded}")


def test_report_gives_an_older_file_todays_table(tmp_path):
    older(tmp_path / "old", 1)
    store.append(tmp_path / "today" / "s.csv", ROWS)
    for folder in ("old", "today"):
        done = kdbench(
            "report", "--suite", "s", "--results", folder, "--out", f"{folder}-report", cwd=tmp_path
        )
        assert done.code == 0, done.err
    old, today = (pd.read_csv(tmp_path / f"{name}-report/s/leaderboard.csv") for name in ("old", "today"))
    pd.testing.assert_frame_equal(old, today)
    assert old["resnet56 -> resnet20: mean"].tolist() == [70.625]


@pytest.mark.parametrize("command", [("run",), ("run", "--dry-run")])
def test_run_refuses_an_older_file_by_naming_the_command(tmp_path, command):
    """Before it trains anything; the file stays as it is, and the command that it names helps."""
    file = older(tmp_path / "results", 2, "digits.csv")
    before = file.read_bytes()
    only = ["--suite", "digits", "--methods", "ce", "--seeds", "0", "--device", "cpu", "--dry-run"]
    done = kdbench(*command[:1], *only[:-1], *command[1:], cwd=tmp_path)
    refused(
        done,
        "rows cannot be added to results/digits.csv",
        "type `kdbench results upgrade results/digits.csv`",
    )
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["digits.csv", "results"]
    assert kdbench("results", "upgrade", "results/digits.csv", cwd=tmp_path).code == 0
    assert kdbench("run", *only, cwd=tmp_path).code == 0
    shutil.rmtree(tmp_path / "results")
