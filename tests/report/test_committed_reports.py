"""What is committed under reports/: small, the files that README and docs show, and no other file of a report."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from kdbench.report.render.leaderboard import SHOWN

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


pytestmark = pytest.mark.skipif(git("ls-files", "reports").stdout == "", reason="this is no git checkout")


@pytest.fixture(scope="module")
def committed():
    return [ROOT / name for name in git("ls-files", "reports").stdout.splitlines()]


def of_suites(files):
    """Folder of a suite's report -> the names of its files."""
    folders = {file.parent for file in files} - {ROOT / "reports" / "bench", ROOT / "reports"}
    return {folder: {file.name for file in files if file.parent == folder} for folder in folders}


def test_all_of_them_stay_small(committed):
    # 5 of them are the page of all methods
    assert sum(file.stat().st_size for file in committed) < 9.5 * MEGABYTE
    pictures = [file for file in committed if file.suffix in (".png", ".svg", ".pdf")]
    assert pictures
    # the largest has the curves of all methods on six pairs
    assert max(file.stat().st_size for file in pictures) < 0.45 * MEGABYTE
    for folder in {file.parent for file in pictures}:
        assert sum(file.parent == folder for file in pictures) <= 4, folder


def test_each_suite_has_its_leaderboard_page_and_pictures(committed):
    suites = of_suites(committed)
    assert suites
    for folder, names in suites.items():
        tuned = (ROOT / "results" / f"{folder.name}.tuning.csv").is_file()
        columns = ["method", "teacher", "student", "seed", "status"]
        rows = pd.read_csv(ROOT / "results" / f"{folder.name}.csv", usecols=columns)
        pairs = len(rows[["teacher", "student"]].dropna().drop_duplicates())
        kd = (
            rows[(rows["method"] == "kd") & (rows["status"] == "ok")]
            .groupby(["teacher", "student"])["seed"]
            .nunique()
        )
        # the others show spread and the mean over all pairs, which a suite that still grows does not have
        needed = {f"{name}.png" for name in (SHOWN if len(kd) == pairs and kd.min() > 1 else ["curves"])}
        shown = names & {f"{name}.png" for name in SHOWN}
        assert needed <= shown
        assert names == {
            "leaderboard.csv", "leaderboard.md", "leaderboard.tex", "index.html", *shown,
            *(["tuning.md", "tuning.png"] if tuned else []),
        }, folder  # fmt: skip
        linked = re.findall(r"\]\((\S+)\)", (folder / "leaderboard.md").read_text("utf-8"))
        assert set(linked) == shown


def test_pages_of_all_suites_share_the_libraries_of_the_package(committed):
    assert (ROOT / "reports" / "_assets").resolve() == ROOT / "kdbench" / "report" / "assets" / "vendor"
    above = {file.name for file in committed if file.parent == ROOT / "reports"}
    assert above == {"_assets", "index.html", "published.html"}


@pytest.mark.parametrize(
    "name",
    ["heatmap.png", "forest-holdout-30ep.png", "forest.svg", "forest.csv", "sweep-kd-t.md", "paper_same.tex"],
)
def test_what_else_a_report_writes_is_ignored(name):
    assert git("check-ignore", f"reports/mine/{name}").returncode == 0
    assert git("check-ignore", "reports/mine/leaderboard.md").returncode == 1
