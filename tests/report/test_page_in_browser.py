"""The pages in a real browser: what follows a choice, keys, links, a phone; and not a word in the browser's log."""

import csv
import io
import re

import numpy as np
import pytest

from tests.support.figures import keep
from tests.support.scenarios import grid, wild
from tests.support.web_pages import SHOWN, failed_then_done, needs_browser, start_browser, write_page

pytestmark = needs_browser
EVIL = "</script><script>alert(1)</script>"
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Ten methods on six pairs, one of them with a second metric; two tables; markup where texts come from."""
    folder = tmp_path_factory.mktemp("page")
    wild(folder, methods=3)
    more = [row | {"ece": row["top1"] / 10} for row in grid([("resnet56", "vgg8")], dkd=0.6)]
    for row in more:  # of 10 images of each class kd has 6 and 5 right, dkd 8 and 4
        right = {"kd": (6, 5), "dkd": (8, 4)}[row["method"]]
        confusion = np.array([[right[0], 10 - right[0]], [10 - right[1], right[1]]])
        keep(folder / "s.details", row, confusion=confusion)
    shown = [*SHOWN, SHOWN[0]._replace(name="gone")]
    return write_page(folder, [*failed_then_done(EVIL), *more], shown=shown)


@pytest.fixture(scope="module")
def browser():
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """Opens the page at an address after #; at the end the log has nothing but the picture that is not there."""

    def at(address=""):
        browser.get("about:blank")
        browser.get(page.as_uri() + address)
        return browser

    yield at
    assert [entry for entry in browser.get_log("browser") if "gone.png" not in entry["message"]] == []


def choose(driver, name, value):
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("css selector", f"[name={name}]")).select_by_visible_text(value)


def type_methods(driver, text):
    field = driver.find_element("name", "methods")
    field.clear()
    field.send_keys(text)


def headings(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('#board thead th')].map((th) => th.getAttribute('aria-label'));"
    )


def column(driver, start, body="#board"):
    """The texts below the heading that starts so, top to bottom."""
    return driver.execute_script(
        """const rows = [...document.querySelectorAll(`${arguments[1]} tbody tr`)];
        const heads = [...document.querySelectorAll(`${arguments[1]} thead th`)];
        const at = heads.findIndex((head) => head.getAttribute("aria-label").startsWith(arguments[0]));
        return rows.map((row) => row.cells[at].innerText);""",
        start,
        body,
    )


def sorter(driver, start):
    return driver.find_element("css selector", f"#board th[aria-label^='{start}'] .dt-column-order")


def sorted_so(driver, direction):
    """Waits until some heading says so: the table is sorted a moment after the key."""
    wait(driver, lambda d: d.find_elements("css selector", f"#board [aria-sort={direction}]"))


def said(driver):
    return driver.find_element("id", "said").text


def wait(driver, until):
    """Waits for what is drawn a moment later."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10).until(until)


def says(element_id, text):
    return lambda driver: text in driver.find_element("id", element_id).text


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def focus(driver, element):
    driver.execute_script("arguments[0].focus({focusVisible: true})", element)


def test_it_opens_with_the_main_table_and_the_lead_first(opened):
    driver = opened()
    assert headings(driver)[:4] == ["method", "mean of 5", "Δ vs kd [95%]", "resnet32x4 -> resnet8x4"]
    top = driver.execute_script(
        "return document.querySelector('#board tbody tr').getBoundingClientRect().top"
    )
    assert top < 400
    assert not driver.find_element("id", "plain").is_displayed()


def test_keys_sort_with_diverged_low_and_missing_last(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened()
    before = column(driver, "resnet56 -> resnet20")
    focus(driver, sorter(driver, "resnet56 -> resnet20"))
    assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(driver, Keys.ENTER)
    sorted_so(driver, "descending")
    falling = column(driver, "resnet56 -> resnet20")
    press(driver, Keys.ENTER)
    sorted_so(driver, "ascending")
    rising = column(driver, "resnet56 -> resnet20")
    assert sorted(falling) == sorted(rising) == sorted(before)
    numbers = [float(text.split()[0]) for text in falling if text[0].isdigit()]
    assert len(numbers) > 5
    assert numbers == sorted(numbers, reverse=True)
    assert falling[len(numbers)] == rising[0] == "✗"
    assert set(falling[-2:]) == set(rising[-2:]) == {"–", "n/a"}
    sorted_ = driver.find_elements("css selector", "#board [aria-sort]")
    assert [cell.get_attribute("aria-sort") for cell in sorted_] == ["ascending"]


def test_table_headers_have_a_scope(opened):
    driver = opened()
    cells = driver.find_elements("css selector", "#board th, #compared th")
    assert {cell.get_attribute("scope") for cell in cells} == {"col", "row"}
    assert driver.find_elements("css selector", "#board tbody th")[0].get_attribute("scope") == "row"


def test_methods_are_found_by_their_exact_names(opened):
    driver = opened()
    type_methods(driver, "kd")
    assert column(driver, "method") == ["kd"]
    assert "1 of 10 methods are shown; bold, ranks, intervals and p are those among all 10." in said(driver)
    type_methods(driver, "method*, BICKD")
    assert sorted(column(driver, "method")) == ["bickd", "method00", "method01", "method02"]
    type_methods(driver, "no such")
    assert column(driver, "method") == ["Nothing here has that name or kind."]


def test_every_number_follows_a_pair_that_is_chosen(opened):
    driver = opened()
    before = dict(zip(column(driver, "method"), column(driver, "Δ vs kd"), strict=True))
    choose(driver, "scope", "vgg13 → vgg8")
    assert headings(driver)[:3] == ["method", "vgg13 -> vgg8", "Δ vs kd [95%]"]
    assert "mean of 5" not in headings(driver)
    after = dict(zip(column(driver, "method"), column(driver, "Δ vs kd"), strict=True))
    assert after["bickd"] != before["bickd"]
    wait(driver, says("bars-heading", "vgg13 → vgg8"))
    assert "pairs are shown" not in said(driver)


def test_what_does_not_follow_a_choice_says_so(opened):
    driver = opened("#pairs=vgg13+-%3E+vgg8&pairs=resnet56+-%3E+vgg8")
    asides = [cell.text for cell in driver.find_elements("css selector", "#board th.aside small")]
    assert len(asides) > 3
    assert set(asides) == {"of all 6 pairs"}
    assert sum("->" in heading for heading in headings(driver)) == 2
    assert "do not follow this choice" in said(driver)
    wait(driver, says("bars-heading", "does not follow the choice of pairs"))


def test_a_metric_brings_its_numbers_notes_and_best_first(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened("#pairs=resnet56+-%3E+vgg8")
    choose(driver, "metric", "ECE")
    values = dict(zip(column(driver, "method"), column(driver, "resnet56"), strict=True))
    assert values["kd"].startswith("7.0")
    assert values["bickd"] == "–"
    assert "Expected calibration error in percent (lower is better)" in said(driver)
    assert "Expected calibration error" in driver.find_element("css selector", "#notes li").text
    assert "calibration error" in driver.find_element("css selector", "#legend li").get_property(
        "textContent"
    )
    focus(driver, sorter(driver, "resnet56"))
    press(driver, Keys.ENTER)
    sorted_so(driver, "ascending")
    assert column(driver, "method")[:2] == ["kd", "dkd"]


def test_two_methods_are_compared_side_by_side(opened):
    driver = opened("#a=kd&b=bickd&methods=crd")
    lines = [column(driver, name, "#compared") for name in ("metric", "pair", "bickd − kd")]
    rows = {(metric, pair): text for metric, pair, text in zip(*lines, strict=True)}
    assert re.fullmatch(r"\+0\.\d\d \[.*\] \(3\)", rows["top-1", "vgg13 → vgg8"])
    assert re.fullmatch(r"\+0\.\d\d \[.*\] \(5\)", rows["top-1", "all 6 pairs"])
    assert rows["top-1", "resnet56 → vgg8"] == "–"
    driver = opened("#pairs=vgg13+-%3E+vgg8")
    table = dict(zip(column(driver, "method"), column(driver, "Δ vs kd"), strict=True))
    assert table["bickd"].rstrip("§") + " (3)" == rows["top-1", "vgg13 → vgg8"]


def test_two_methods_are_compared_class_by_class(opened):
    driver = opened("#a=kd&b=dkd")
    assert "resnet56 → vgg8" in driver.find_element("id", "classes-heading").text
    rows = driver.find_elements("css selector", "#classes tr")
    shown = [" ".join(row.text.split()) for row in rows]
    assert shown[0] == "class kd − dkd kd dkd images"
    assert shown[1:] == ["1 +10.0 50.0 40.0 10", "0 −20.0 60.0 80.0 10"]
    assert "on the same seeds (3)" in driver.find_element("id", "classes-said").text
    choose(driver, "b", "bickd")
    assert "no predictions of bickd on this pair" in driver.find_element("id", "classes-said").text
    assert not driver.find_element("id", "classes").is_displayed()


def test_a_link_brings_everything_back(opened):
    driver = opened()
    choose(driver, "scope", "vgg13 → vgg8")
    type_methods(driver, "kd, bickd, method*")
    sorter(driver, "Δ vs kd").click()
    sorted_so(driver, "descending")
    choose(driver, "a", "bickd")
    address = driver.execute_script("return location.hash")
    seen = (headings(driver), column(driver, "method"), column(driver, "metric", "#compared"))
    again = opened(address)
    assert (headings(again), column(again, "method"), column(again, "metric", "#compared")) == seen
    assert again.find_element("name", "methods").get_attribute("value") == "kd, bickd, method*"
    again.find_element("link text", "How to read it").click()
    assert "methods=kd" in again.execute_script("return location.hash")
    assert column(again, "method") == seen[1]


def test_an_address_that_names_nothing_shows_everything(opened):
    driver = opened("#metric=nosuch&pairs=a&table=b&entry=c&sort=d&a=e&curve=f&cost=g&term=h")
    assert len(column(driver, "method")) == 10
    assert headings(driver)[1] == "mean of 5"


def test_an_entry_opens_by_key_and_escape_returns_the_focus(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened("#methods=vid")
    button = driver.find_element("css selector", "#board tbody button")
    key = button.get_attribute("data-entry")
    focus(driver, button)
    press(driver, Keys.ENTER)
    dialog = driver.find_element("css selector", "dialog")
    assert dialog.find_element("id", "dialog-title").text == "vid on resnet56 → resnet20"
    rows = dialog.find_elements("css selector", "tbody tr")
    assert [row.text.split()[3] for row in rows] == ["error", "ok"]
    assert EVIL in dialog.text
    assert "entry=vid" in driver.execute_script("return location.hash")
    press(driver, Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert driver.switch_to.active_element.get_attribute("data-entry") == key
    opened("#entry=bickd%7Cvgg13+-%3E+vgg8")
    dialog = driver.find_element("css selector", "dialog")
    assert dialog.find_element("id", "dialog-title").text == "bickd on vgg13 → vgg8"
    assert len(dialog.find_elements("css selector", ".chart .scatterlayer .trace")) == 6


def text_of(driver, name):
    driver.find_element("css selector", f"[data-take={name}]").click()
    text = driver.find_element("css selector", "dialog textarea").get_property("value")
    driver.find_element("css selector", "dialog .close").click()
    return text


def test_csv_latex_and_bibtex_are_of_what_is_shown(opened):
    driver = opened("#methods=kd,bickd,crd&pairs=vgg13+-%3E+vgg8")
    lines = list(csv.reader(io.StringIO(text_of(driver, "csv"))))
    assert lines[0][:2] == ["method", "vgg13 -> vgg8"]
    assert [line[0] for line in lines[1:]] == column(driver, "method")
    assert [line[1] for line in lines[1:]] == column(driver, "vgg13")
    tex = text_of(driver, "latex")
    assert r"\textbf{" in tex
    assert r"$\pm$" in tex
    assert "±" not in tex
    assert (
        tex.count(r"\\") == 2 * len(lines) - len(lines) + 1
    )  # one per row, one within the heading of the pair
    bibtex = text_of(driver, "bibtex")
    assert set(re.findall(r"^@\w+\{([a-z]+)\d", bibtex, re.MULTILINE)) == {"kd", "bickd", "crd"}


def test_papers_are_linked(opened):
    driver = opened("#methods=crd")
    links = driver.find_elements("css selector", "#board tbody a")
    assert [link.get_attribute("href") for link in links] == ["https://arxiv.org/abs/1910.10699"]


def test_charts_draw_the_methods_that_are_chosen(opened):
    driver = opened("#methods=bickd,kd,method*")
    wait(driver, lambda d: d.find_elements("css selector", "#curves .legendtext"))
    names = driver.find_elements("css selector", "#curves .legendtext")
    assert {name.text for name in names} == set(column(driver, "method"))
    assert len(driver.find_elements("css selector", "#bars .scatterlayer .point")) == 4
    drawn = "return [...document.querySelectorAll('#curves .scatterlayer path.js-line')].length"
    before = driver.execute_script(drawn)
    driver.find_element("css selector", "#curves .legendtoggle").click()
    wait(driver, lambda d: d.execute_script(drawn) < before)


def test_everything_that_can_be_clicked_is_reached_by_tab(opened):
    driver = opened()
    clicked = driver.find_elements(
        "css selector", "main button, main a[href], main select, main input, summary, .dt-column-order"
    )
    assert len(clicked) > 40
    assert all(element.get_property("tabIndex") == 0 for element in clicked)
    fields = driver.find_elements("css selector", "main select, main input")
    named = "return arguments[0].labels.length > 0 && arguments[0].labels[0].textContent.trim() !== ''"
    assert all(driver.execute_script(named, field) for field in fields)


def test_a_picture_that_is_not_there_is_named(opened):
    driver = opened()
    absent = driver.find_elements("css selector", "figure .absent")
    driver.execute_script("arguments[0].closest('figure').scrollIntoView()", absent[1])
    wait(driver, lambda _: absent[1].is_displayed())
    assert absent[1].text == "gone.png is not in the folder of this page; kdbench report writes it there."
    assert not absent[0].is_displayed()


def test_on_a_phone_top1_and_charts_are_in_sight(opened, browser):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    try:
        driver = opened()
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        cell = driver.find_element("css selector", "#board tbody td")
        right = driver.execute_script("return arguments[0].getBoundingClientRect().right", cell)
        assert column(driver, "mean of 5")[0] == cell.text
        assert right < 390
        wait(driver, lambda d: d.find_elements("css selector", "#curves .legendtext"))
        shown = driver.find_elements("css selector", ".chart:not([hidden]), figure img")
        sizes = [
            driver.execute_script("return arguments[0].getBoundingClientRect().right", one) for one in shown
        ]
        assert 0 < max(sizes) <= 390
        left = "return document.querySelector('#board tbody th').getBoundingClientRect().left"
        before = driver.execute_script(left)
        driver.execute_script("document.querySelector('#board .scroll').scrollLeft = 300")
        assert driver.execute_script(left) == before  # the method's name stays
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_its_libraries_the_plain_tables_are_shown(browser, page, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "index.html").write_bytes(page.read_bytes())
    browser.get((folder / "index.html").as_uri())
    assert browser.find_element("id", "missing").is_displayed()
    assert browser.find_element("css selector", "#plain table").is_displayed()
    assert not browser.find_element("id", "leaderboard").is_displayed()
    browser.get_log("browser")


def test_published_numbers_are_filtered_by_exact_names(browser, page):
    browser.get(
        (page.parents[1] / "published.html").as_uri() + "#method=kd&teacher=resnet56&student=resnet20"
    )
    count = browser.find_element("id", "said")
    assert re.fullmatch(r"\d\d of 2,463 numbers\.", count.text)
    assert set(column(browser, "method", "#numbers")) == {"kd"}
    choose(browser, "key", "CRD")
    assert column(browser, "value", "#numbers") == ["70.66"]
    assert "key=CRD" in browser.execute_script("return location.hash")
    assert (
        browser.find_element("css selector", "#numbers tbody a").get_attribute("href").endswith("1910.10699")
    )
    browser.find_element("link text", "All suites").click()
    assert browser.find_element("css selector", "h1").text == "Reports of kdbench"
    assert browser.get_log("browser") == []
