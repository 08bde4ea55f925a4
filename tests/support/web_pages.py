"""Pages of the report for tests, and a real browser that opens them."""

import json
import re
import shutil
from pathlib import Path

import pytest

from kdbench.report import reproducibility
from kdbench.report.figures import files
from kdbench.report.leaderboard import board
from kdbench.report.load import merge
from kdbench.report.order import main_first
from kdbench.report.page import html, index
from kdbench.report.provenance import provenance
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.scenarios import run

SHOWN = (files.Picture("forest", "Differences", 0, ("png",)),)
DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="chromium and its driver are not installed"
)


def boards_of(results):
    """The boards of results/s.csv, as `kdbench report` orders them."""
    return [board(table, "kd") for table in main_first(tables(merge("s", results).records), "s")]


def write_page(folder, rows=(), curves=(), shown=SHOWN):
    """Rows -> <folder>/s.csv and <folder>/reports/s/index.html, with one small picture; details: <folder>/s.details."""
    store.append(folder / "s.csv", rows)
    store.append(folder / "s.curves.csv", curves, store.CURVE_COLUMNS)
    merged, boards = merge("s", folder), boards_of(folder)
    repeated = reproducibility.frame(merged.attempts, merged.records)
    footer = provenance("s", [b.table for b in boards])
    out = folder / "reports" / "s"
    out.mkdir(parents=True)
    (out / "forest.png").write_bytes(Path(__file__).with_name("pixel.png").read_bytes())
    text = html.page(
        "s", boards, footer, merged.attempts, merged.curves, [folder / "s.details"], repeated, shown
    )
    (out / "index.html").write_text(text, "utf-8")
    index.write(out.parent)
    return out / "index.html"


def failed_then_done(error):
    """Two attempts at one cell, the first one with this error."""
    failed = run("vid", None, status="error", error=error, device="gpu B")
    return [failed, {**failed, "status": "ok", "top1": 71.0, "error": None, "attempt": 2}]


def data_of(page):
    """The data that a page's script picks from."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    (text,) = re.findall(pattern, page.read_text("utf-8"), re.DOTALL)
    return json.loads(text)


def start_browser():
    """A headless browser, 1280 px wide; needs `needs_browser`."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
