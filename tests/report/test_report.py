"""The report as files: all of them, the same bytes for the same rows, and what happens where there is little."""

import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.report import reproducibility
from kdbench.report.leaderboard import board
from kdbench.report.load import merge
from kdbench.report.page import html
from kdbench.report.render import latex_leaderboard, leaderboard
from kdbench.report.tables import tables
from kdbench.report.write import write_report
from kdbench.results import store
from tests.support.cli_process import kdbench, refused
from tests.support.scenarios import COLUMN, PAIRS, A, hex12, run, runs, wild

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(folder of results, folder of the report, its text)"""
    path = tmp_path_factory.mktemp("wild")
    wild(path, methods=1, pairs=[A, PAIRS[1]])
    before = dict(matplotlib.rcParams)
    text = write_report("s", str(path), str(path / "out"))
    assert dict(matplotlib.rcParams) == before  # matplotlib is left as it was
    return path, path / "out" / "s", text


def test_a_baseline_that_nobody_ran_is_refused(written, tmp_path):
    with pytest.raises(KdbenchError, match=r"no run of 'kdd'; --baseline takes one of .*dkd"):
        write_report("s", written[0], tmp_path, baseline="kdd")
    assert not list(tmp_path.iterdir())


def test_rows_of_the_holdout_split_alone_make_a_report(tmp_path):
    store.append(
        tmp_path / "s.csv", [*runs("kd", 60.0, 61.0, split="holdout"), *runs("ce", 50.0, split="holdout")]
    )
    write_report("s", tmp_path, tmp_path / "out")
    assert "Nothing is published" in (tmp_path / "out" / "s" / "reproduction.md").read_text("utf-8")


FILES = ["index.html", "leaderboard.csv", "leaderboard.md", "leaderboard.tex"]


def test_files(written):
    names = {path.name for path in written[1].iterdir()}
    figures = {f"{figure}.{kind}" for figure in ("curves", "forest") for kind in ("csv", "png")}
    assert names >= {*FILES, *figures}
    assert not [name for name in names if name.endswith((".svg", ".pdf"))]
    assert "reproducibility.csv" not in names  # no cell was trained twice


def test_same_rows_same_bytes(written):
    results, first, text = written
    assert write_report("s", results, results / "again") == text
    for path in first.iterdir():
        assert path.read_bytes() == (results / "again" / "s" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", [*FILES, "text"])
def test_every_artefact_names_rows_commit_device_and_teachers(written, name):
    _, folder, text = written
    content = text if name == "text" else (folder / name).read_text()
    flat = " ".join(content.split())
    assert f"Suite s; recipe {hex12('r1')};" in flat
    assert "commit 0123456789;" in flat
    assert "device gpu; torch 2.9.0" in flat
    plain = flat.replace("\\_", "_")
    assert "resnet56 abcd12340000 (accuracy unknown)" in plain
    assert "vgg13 abcd12340000 (74.64 holdout, 75.01 test)" in plain


def test_markdown_tables_are_whole(written):
    text = (written[1] / "leaderboard.md").read_text()
    tables_ = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables_) == 2
    for table in tables_:
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
    assert "✗" in tables_[0]


def test_csv_keeps_full_digits(written):
    frame = pd.read_csv(written[1] / "leaderboard.csv")
    line = frame[(frame["split"] == "test") & (frame["label"] == "bickd")].iloc[0]
    assert line[f"{COLUMN}: mean"] == pytest.approx(70.5 + 0.1 / 3 + 0.05, abs=1e-12)
    assert line["wins"] + line["ties"] + line["losses"] == line["pairs_common"]


def test_formats_are_those_asked_for_and_an_earlier_reports_go(tmp_path):
    store.append(tmp_path / "s.csv", [*runs("kd", 70.0, 71.0), *runs("dkd", 71.0, 72.5)])
    folder = tmp_path / "out" / "s"
    for formats in (["svg", "pdf", "svg"], ["pdf"]):
        write_report("s", tmp_path, tmp_path / "out", formats=formats)
        forest = {path.suffix for path in folder.glob("forest.*")}
        assert forest == {".csv", *(f".{kind}" for kind in formats)}
        shown = "![Paired differences in top-1 to kd.](forest.svg)" in (folder / "leaderboard.md").read_text()
        assert shown == ("svg" in formats)
        assert ('src="forest.svg"' in (folder / "index.html").read_text()) == shown
    assert "(forest.pdf)" in (folder / "leaderboard.md").read_text()
    assert '<a href="forest.pdf">forest.pdf</a>' in (folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("formats", "sentence"),
    [
        (["pnf"], "unknown figure format 'pnf'; --format takes png, svg, pdf; did you mean 'png'?"),
        ([], "no figure format is named; --format takes png, svg, pdf (several: png,svg)"),
    ],
)
def test_an_unknown_format_is_one_sentence(written, tmp_path, formats, sentence):
    with pytest.raises(KdbenchError) as error:
        write_report("s", written[0], tmp_path, formats=formats)
    assert str(error.value) == sentence
    assert not list(tmp_path.iterdir())
    refused(
        kdbench("report", "--results", str(written[0]), "--format", ",".join(formats), cwd=tmp_path), sentence
    )


def test_no_rows_tells_the_remedy(tmp_path):
    with pytest.raises(KdbenchError, match="kdbench run --suite digits"):
        write_report("digits", tmp_path, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    store.append(tmp_path / "s.csv", [run("kd")])
    (tmp_path / "file").write_text("")
    with pytest.raises(KdbenchError, match="cannot write"):
        write_report("s", tmp_path, tmp_path / "file")


def test_torch_is_not_imported(tmp_path):
    store.append(tmp_path / "s.csv", runs("kd", 70.0, 71.0))
    code = f"""
import sys
from kdbench.cli.main import main
sys.argv = ["kdbench", "report", "--results", {str(tmp_path)!r}, "--out", {str(tmp_path / "out")!r}]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr
    assert (tmp_path / "out" / "s" / "index.html").exists()


@pytest.mark.slow
def test_ten_thousand_rows_take_seconds(tmp_path):
    """45 methods, 15 pairs, 15 seeds: everything but the figures."""
    methods = {"kd": 0.0} | {f"m{i}": 0.01 * i for i in range(44)}
    rows = [
        run(method, 70.0 + gain + (seed * 7 + i) % 5, (f"teacher{i}", "s"), seed)
        for i in range(15)
        for method, gain in methods.items()
        for seed in range(15)
    ]
    store.append(tmp_path / "s.csv", rows)
    start = time.process_time()
    merged = merge("s", tmp_path)
    boards = [board(table, "kd") for table in tables(merged.records)]
    runs = reproducibility.frame(merged.attempts, merged.records)
    leaderboard.text("s", boards, [])
    leaderboard.markdown("s", boards, [], runs)
    leaderboard.csv("s", boards, [])
    latex_leaderboard.leaderboard("s", boards, [])
    latex_leaderboard.appendix("s", boards, [])
    page = html.page("s", boards, [], merged.attempts, merged.curves, [], runs, [])
    assert page.count('"facts":[') == 45 * 15
    assert len(rows) > 10_000
    assert time.process_time() - start < 10
