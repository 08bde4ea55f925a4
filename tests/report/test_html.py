"""index.html as a file, and in a real browser: it sorts, filters, opens what lies behind a cell, and logs no error."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from kdbench.report import columns, reproducibility
from kdbench.report.figures import files
from kdbench.report.figures.sheet import FORMATS, SCREEN, Canvas
from kdbench.report.leaderboard import board
from kdbench.report.load import merge
from kdbench.report.provenance import provenance
from kdbench.report.render import html, html_data
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.scenarios import COLUMN, boards, hex12, run, runs, wild

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


SHOWN = [files.Picture("forest", "Differences", 0, ("png",))]


def write_page(results, rows, curves=(), shown=SHOWN):
    """Results -> index.html in their folder, with one small figure."""
    store.append(results / "s.csv", rows)
    store.append(results / "s.curves.csv", curves, store.CURVE_COLUMNS)
    merged = merge("s", results)
    found = [board(table, "kd") for table in tables(merged.records)]
    runs_ = reproducibility.frame(merged.attempts, merged.records)
    figure, _ = Canvas(SCREEN, 20, "title", ["a footer"]).draw([2.0])  # wider than the page
    SCREEN.save(figure, results / "forest")
    footer = provenance("s", [b.table for b in found])
    text = html.page("s", found, footer, merged.attempts, merged.curves, runs_, shown)
    (results / "index.html").write_text(text)
    return results / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of everything at once, an attempt that failed before, and markup where texts come from."""
    failed = run("vid", None, status="error", error=EVIL, device="gpu B")
    done = {**failed, "status": "ok", "top1": 71.0, "error": None, "attempt": 2}
    path = tmp_path_factory.mktemp("html")
    wild(path)
    return write_page(path, [failed, done])


class Outline(HTMLParser):
    """Tags that are opened and never closed, and every address that the page asks for."""

    VOID = frozenset(["meta", "link", "input", "img", "br"])

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.addresses += [known[name] for name in ("src", "href") if name in known]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(page):
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    return json.loads(text)


# --- the file ---


def test_it_needs_its_pictures_and_no_network(page):
    outline = Outline(page.read_text())
    files_ = [address for address in outline.addresses if not address.startswith(("data:", "#"))]
    assert files_ == ["forest.png"]
    assert (page.parent / "forest.png").is_file()
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)|base64", page.read_text())


def test_markup_in_results_stays_text(page):
    text = page.read_text()
    assert "<img src=x" not in text
    assert text.count("<script") == 2
    attempts = [attempt for known in data_of(page)["runs"].values() for attempt in known["attempts"]]
    assert any(EVIL in attempt for attempt in attempts)


def test_every_cell_with_a_run_can_be_opened_and_no_other(page):
    text = page.read_text()
    keys = re.findall(r'data-entry="([^"]+)"', text)
    assert set(keys) == set(data_of(page)["entries"])
    assert len(keys) == len(set(keys))
    titles = [data_of(page)["entries"][key]["title"] for key in keys]
    assert f"fitnet on {COLUMN}" in titles  # skipped: the reason
    assert "fitnet on vgg13 -> vgg8" not in titles


def test_same_rows_same_bytes(page, tmp_path):
    for name in ("s.csv", "s.curves.csv"):
        shutil.copy(page.parent / name, tmp_path)
    assert write_page(tmp_path, []).read_bytes() == page.read_bytes()


def test_figures_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    for name in ("curves", "sweep-gone-k", "forest-holdout-0.5ep"):
        for kind in (*FORMATS, "csv"):
            (tmp_path / f"{name}.{kind}").write_text("")
    (tmp_path / "sweep-gone-k.md").write_text("of rows that are no more")
    for name in ("mine.svg", "leaderboard.csv", "forestry.png"):
        (tmp_path / name).write_text("")
    files.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.svg", "leaderboard.csv", "forestry.png"}


def test_a_phone_and_a_dark_room_are_thought_of(page):
    text = page.read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text


def test_details_have_attempts_parameters_costs_and_reasons(tmp_path):
    failed = run("kd", None, status="oom", attempt=1, run_id=hex12("a"), error="out of memory")
    done = {**failed, "status": "ok", "top1": 70.0, "attempt": 2, "run_id": hex12("b"), "error": None}
    done |= {"params": '{"temperature":4.0}', "peak_mem_mb": 919.4, "extra_params": 1234}
    rows = [failed, done, run("fitnet", None, status="skipped", error="no stages")]
    found = boards(tmp_path, rows)
    known = html_data.details(found, [columns.columns(b) for b in found], store.read(tmp_path / "s.csv"), pd.DataFrame(
        columns=store.CURVE_COLUMNS
    ))  # fmt: skip
    by_title = {cell["title"]: cell for cell in known["entries"].values()}
    kd, fitnet = by_title[f"kd on {COLUMN}"], by_title[f"fitnet on {COLUMN}"]
    assert kd["params"] == [("temperature", "4.0")]
    assert ("skipped", "no stages") in fitnet["facts"]
    lines = [dict(zip(known["attempt"], a, strict=True)) for a in known["runs"][done["cell_id"]]["attempts"]]
    assert [line["status"] for line in lines] == ["oom", "ok"]
    assert [line["counted"] for line in lines] == ["no", "yes"]
    assert lines[0]["error"] == "out of memory"
    assert (lines[1]["train s"], lines[1]["peak MB"], lines[1]["extra parameters"]) == (
        "240.0",
        "919",
        "1,234",
    )


def test_curves_are_thinned_to_measured_points_and_both_ends(tmp_path):
    rows = runs("kd", 70.0)
    found = boards(tmp_path, rows)
    line = {"cell_id": rows[0]["cell_id"], "run_id": hex12("run")}
    curves = pd.DataFrame([line | {"epoch": e, "term": "loss", "value": 1000.0 + e} for e in range(1, 241)])
    curves = pd.concat([curves, pd.DataFrame([line | {"epoch": 9, "term": "top1", "value": 50.0}])])
    known = html_data.details(found, [columns.columns(b) for b in found], pd.DataFrame(rows), curves)
    drawn = known["runs"][rows[0]["cell_id"]]["curves"]
    epochs, values = drawn["loss"]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 240, html_data.MANY)
    assert values == [1000.0 + epoch for epoch in epochs]
    assert max(b - a for a, b in itertools.pairwise(epochs)) == 5
    assert drawn["top1"] == [[9], [50.0]]


# --- the browser ---


@pytest.fixture
def absent(tmp_path):
    """A page whose one picture is not in its folder."""
    return write_page(tmp_path, runs("kd", 70.0), shown=[files.Picture("gone", "x", 0, ("png",))])


DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(not (DRIVER and BROWSER), reason="chromium and its driver are not installed")


@pytest.fixture(scope="module")
def browser(page):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """A fresh page, and at the end not a word in the browser's log."""
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def column(driver, heading):
    """The texts of the shown cells below a heading of the first board, top to bottom."""
    return driver.execute_script(
        """const table = document.querySelector(".board table");
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim().startsWith(arguments[0]));
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].innerText);""",
        heading,
    )


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def focused(driver):
    return driver.switch_to.active_element


def heading(driver, start):
    (button,) = [
        b
        for b in driver.find_elements("css selector", ".board:first-child .sort")
        if b.text.startswith(start)
    ]
    return button


@pytest.mark.usefixtures("opened")
class TestInBrowser:
    pytestmark = in_browser

    def test_it_sorts_numbers_with_diverged_low_and_missing_last(self, browser):
        before = column(browser, "resnet56")
        heading(browser, "resnet56").click()
        falling = column(browser, "resnet56")
        heading(browser, "resnet56").click()
        rising = column(browser, "resnet56")
        assert sorted(falling) == sorted(rising) == sorted(before)
        numbers = [float(text.split()[0]) for text in falling if text[0].isdigit()]
        assert len(numbers) > 10
        assert numbers == sorted(numbers, reverse=True)
        assert falling[len(numbers)] == rising[0] == "✗"
        assert falling[-1] == rising[-1] == "n/a"
        cell = heading(browser, "resnet56").find_element("xpath", "..")
        assert cell.get_attribute("aria-sort") == "ascending"
        assert len(browser.find_elements("css selector", ".board:first-child [aria-sort]")) == 1

    def test_it_filters_methods_and_pairs_and_says_how_many_are_left(self, browser):
        browser.find_element("css selector", ".methods").send_keys("bickd method07")
        assert sorted(column(browser, "method")) == ["bickd", "method07"]
        browser.find_element("css selector", ".pairs").send_keys("VGG")
        shown = [
            b.text
            for b in browser.find_elements("css selector", ".board:first-child .sort")
            if b.is_displayed()
        ]
        assert [text.split()[0] for text in shown if "→" in text] == ["vgg13"]
        assert "rank" in "".join(shown)
        said = browser.find_element("css selector", ".board output").text
        assert re.fullmatch(r"2 of \d+ methods, 1 of 5 pairs", said)

    def test_an_entry_opens_by_key_and_escape_returns_the_focus(self, browser):
        from selenium.webdriver.common.keys import Keys

        button = next(
            b
            for b in browser.find_elements("css selector", "tbody button")
            if b.find_element("xpath", "../../th").text == "bickd"
        )
        browser.execute_script("arguments[0].focus({focusVisible: true})", button)
        assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", button) == "solid"
        press(browser, Keys.ENTER)
        dialog = browser.find_element("css selector", "dialog")
        assert dialog.is_displayed()
        assert dialog.find_element("css selector", "h2").text.startswith("bickd on ")
        rows = dialog.find_elements("css selector", "tbody tr")
        assert [row.find_element("css selector", "td").text for row in rows] == ["0", "1", "2"]
        assert len(dialog.find_elements("css selector", ".plots svg")) == 2
        assert len(dialog.find_elements("css selector", ".plots .curve")) == 6  # three seeds, two terms
        press(browser, Keys.ESCAPE)
        assert not dialog.is_displayed()
        assert focused(browser) == button

    def test_a_sort_and_a_filter_keep_each_cell_its_own_details(self, browser):
        heading(browser, "method").click()
        heading(browser, "method").click()
        browser.find_element("css selector", ".methods").send_keys("vid")
        (row,) = [
            r
            for r in browser.find_elements("css selector", ".board:first-child tbody tr")
            if r.is_displayed()
        ]
        row.find_element("css selector", "button").click()
        dialog = browser.find_element("css selector", "dialog")
        assert dialog.find_element("css selector", "h2").text == "vid on resnet56 → resnet20"
        assert [r.text.split()[2] for r in dialog.find_elements("css selector", "tbody tr")] == [
            "error",
            "ok",
        ]
        assert EVIL in dialog.text
        dialog.find_element("css selector", ".close").click()
        assert not dialog.is_displayed()

    def test_everything_that_can_be_clicked_is_reached_by_tab(self, browser):
        wrong = browser.execute_script(
            """return [...document.querySelectorAll("[onclick], [role=button], td, th")].filter(
            (e) => e.onclick || e.getAttribute("role") === "button").length"""
        )
        buttons = browser.find_elements("css selector", "button")
        assert wrong == 0
        assert all(button.get_property("tabIndex") == 0 for button in buttons)

    def test_a_wide_figure_is_shown_in_full_on_demand(self, browser):
        image, button = (browser.find_element("css selector", f"figure {name}") for name in ("img", ".zoom"))
        assert image.size["width"] < 1280
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert image.size["width"] == image.get_property("naturalWidth") > 1280

    def test_a_picture_that_is_not_there_is_named(self, browser, absent):
        browser.get(absent.as_uri())
        image, said = (browser.find_element("css selector", f"figure {name}") for name in ("img", ".absent"))
        assert not image.is_displayed()
        assert said.text == "gone.png is not in the folder of this page; kdbench report writes it there."
        (entry,) = browser.get_log("browser")
        assert "gone.png" in entry["message"]

    def test_on_a_phone_only_tables_and_figures_scroll_sideways(self, browser):
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
            left = "return document.querySelector('tbody th').getBoundingClientRect().left"
            before = browser.execute_script(left)
            browser.execute_script("document.querySelector('.scroll').scrollLeft = 300")
            assert browser.execute_script(left) == before  # the method's name stays
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
