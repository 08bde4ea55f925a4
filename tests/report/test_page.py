"""index.html as a file: its numbers are those of the leaderboard, and it needs no network."""

import itertools
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from kdbench.report import columns
from kdbench.report.figures import files
from kdbench.report.figures.sheet import FORMATS
from kdbench.report.leaderboard import board
from kdbench.report.metrics import METRICS
from kdbench.report.page import compare, curves, index, published, runs
from kdbench.report.page.scopes import restricted, scopes
from kdbench.report.page.views import view
from kdbench.report.render import leaderboard
from kdbench.results import store
from kdbench.results.published import load
from tests.support.scenarios import COLUMN, PAIRS, A, boards, grid, hex12, run, timed_grid, wild
from tests.support.scenarios import runs as runs_of
from tests.support.web_pages import boards_of, data_of, failed_then_done, write_page

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
TWO = [metric for metric in METRICS if metric.column in ("top1", "nll")]  # those that the rows here have
NO_CURVES = pd.DataFrame(columns=store.CURVE_COLUMNS)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of everything at once, an attempt that failed before, and markup where texts come from."""
    folder = tmp_path_factory.mktemp("page")
    wild(folder, methods=3)
    return write_page(folder, failed_then_done(EVIL))


@pytest.fixture(scope="module")
def board_of_three(tmp_path_factory):
    """Three pairs, two of them of one family; two metrics; the last pair lacks a method."""
    pairs = [A, PAIRS[0], ("resnet56", "vgg8")]
    rows = [row | {"nll": 4 - row["top1"] / 40} for row in grid(pairs, dkd=0.6, at=-0.3)]
    rows += [row | {"nll": 4 - row["top1"] / 40} for row in runs_of("crd", 70.6, 70.9, 71.2)]
    (found,) = boards(tmp_path_factory.mktemp("three"), rows)
    return found


class Outline(HTMLParser):
    """Tags that are opened and never closed, what is loaded, where links lead, and ids."""

    VOID = frozenset(["meta", "link", "input", "img", "br"])

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.links, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.ids += [known["id"]] if "id" in known else []
        self.loaded += [known["src"]] if "src" in known else []
        self.links += [known["href"]] if "href" in known else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# --- the file ---


def test_what_it_loads_lies_beside_it(page):
    outline = Outline(page.read_text("utf-8"))
    assert {name.rpartition("/")[0] for name in outline.loaded} == {"../_assets", ""}
    assert len(outline.loaded) == 3
    assert all((page.parent / name).is_file() for name in outline.loaded)
    ours = [link for link in outline.links if not link.startswith(("data:", "#", "forest", "leaderboard"))]
    assert sorted(ours) == ["../index.html", "../published.html"]
    assert all((page.parent / link).is_file() for link in ours)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert not re.search(r"url\(|@import|base64", page.read_text("utf-8"))


def test_libraries_have_their_licences_beside_them(page):
    names = {file.name for file in (page.parents[1] / "_assets").iterdir()}
    libraries = {name for name in names if name.endswith(".js")}
    assert len(libraries) == 2
    assert names - libraries == {name.replace(".min.js", ".LICENSE.txt") for name in libraries}


def test_markup_in_results_stays_text(page):
    text = page.read_text("utf-8")
    assert "<img src=x" not in text
    assert text.count("<script") == 4
    attempts = [attempt for known in data_of(page)["runs"].values() for attempt in known["attempts"]]
    assert any(EVIL in attempt for attempt in attempts)


def test_every_entry_with_a_run_can_be_opened_and_no_other(page):
    table = data_of(page)["tables"][0]
    names = {
        (table["labels"][int(i)], table["pairs"][int(j)])
        for i, j in (key.split("-") for key in table["entries"])
    }
    assert ("fitnet", COLUMN) in names  # skipped: the reason
    assert ("fitnet", "vgg13 -> vgg8") not in names
    cells = {(label, pair) for label in table["labels"] for pair in table["pairs"]}
    without = {
        (label, pair)
        for j, pair in enumerate(table["pairs"])
        for label, cell in zip(table["labels"], table["metrics"][0]["pairs"][j]["cells"], strict=True)
        if cell[0] == "–"
    }
    assert names == cells - without


def test_same_rows_same_bytes(page, tmp_path):
    for name in ("s.csv", "s.curves.csv"):
        shutil.copy(page.parents[2] / name, tmp_path)
    again = write_page(tmp_path)
    assert again.read_bytes() == page.read_bytes()
    for name in ("index.html", "published.html"):
        assert (again.parents[1] / name).read_bytes() == (page.parents[1] / name).read_bytes()


def test_without_javascript_there_are_plain_tables(page):
    text = page.read_text("utf-8")
    plain = text[text.index('id="plain"') : text.index('id="leaderboard"')]
    assert plain.count("<table>") == len(data_of(page)["tables"])
    for label in boards_of(page.parents[2])[0].labels:
        assert f'<th scope="row">{label}</th>' in plain
    assert "<noscript>" in text


def test_a_phone_and_a_dark_room_are_thought_of(page):
    text = page.read_text("utf-8")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text


def test_figures_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    for name in ("curves", "sweep-gone-k", "forest-holdout-0.5ep"):
        for kind in (*FORMATS, "csv"):
            (tmp_path / f"{name}.{kind}").write_text("")
    (tmp_path / "sweep-gone-k.md").write_text("of rows that are no more")
    for name in ("mine.svg", "leaderboard.csv", "forestry.png"):
        (tmp_path / name).write_text("")
    files.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.svg", "leaderboard.csv", "forestry.png"}


# --- its numbers ---


def by_label(shown, cells):
    """Label -> the text of its cell."""
    texts = [cell[0] + (cell[2] if len(cell) > 2 else "") for cell in cells]
    return dict(zip(shown["labels"], texts, strict=True))


def test_its_numbers_are_those_of_the_csv(board_of_three, tmp_path):
    shown = view(board_of_three, NO_CURVES, [])
    (tmp_path / "l.csv").write_text(leaderboard.csv("s", [board_of_three], []))
    written = pd.read_csv(tmp_path / "l.csv").set_index("label")
    top1 = shown["metrics"][0]
    for pair, column in zip(shown["pairs"], top1["pairs"], strict=True):
        for label, cell in zip(shown["labels"], column["cells"], strict=True):
            mean, std, n = (written.loc[label, f"{pair}: {name}"] for name in ("mean", "std", "n"))
            assert cell[0] == ("–" if n == 0 else f"{mean:.2f} ± {std:.2f} ({n:.0f})")
            assert (len(cell) > 3 and bool(cell[3])) == written.loc[label, f"{pair}: bold"]
    everything = {
        column["heading"]: by_label(shown, column["cells"]) for column in top1["scopes"][0]["columns"]
    }
    for label, row in written.drop(index="kd").iterrows():
        assert everything["Δ vs kd [95%]"][label].startswith(
            f"{row['delta']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        )
        assert everything["rank"][label] == ("–" if pd.isna(row["rank"]) else f"{row['rank']:.1f}")
    assert top1["scopes"][0]["order"] == list(range(len(shown["labels"])))


@pytest.mark.parametrize("place", [1, 2], ids=["same family", "one pair"])
def test_numbers_of_a_choice_are_those_of_its_pairs_alone(board_of_three, tmp_path, place):
    shown = view(board_of_three, NO_CURVES, [])
    scope = shown["scopes"][place]
    rows = board_of_three.table.rows
    rows = rows[rows["pair"].isin([shown["pairs"][i] for i in scope["pairs"]])][store.COLUMNS]
    (alone,) = boards(tmp_path, rows.astype(object).where(rows.notna(), None).to_dict("records"))
    for metric, own in zip(TWO, shown["metrics"], strict=False):
        fresh, summary = board(alone.table, "kd", metric), own["scopes"][place]
        assert [shown["labels"][i] for i in summary["order"]] == fresh.labels
        columns_ = {column["heading"]: by_label(shown, column["cells"]) for column in summary["columns"]}
        expected = [column for column in columns.summary(fresh) if column.heading != "coverage"]
        for column in expected:
            texts = [columns_[column.heading][label] for label in fresh.labels]
            assert texts == [text.marked(str) for text in column.entries]


def test_pairs_of_one_family_are_a_choice():
    found = scopes(["resnet56 -> resnet20", "vgg13 -> vgg8", "resnet50 -> vgg8", "vgg13 -> mobilenetv2"])
    assert [(scope.title, len(scope.pairs)) for scope in found[:3]] == [
        ("all 4 pairs", 4), ("same family (2)", 2), ("different families (2)", 2),
    ]  # fmt: skip
    assert [scope.title for scope in scopes(["a -> b"])] == ["a -> b"]


def differences(of):
    """(label i, label j) -> words, over all pairs."""
    triangle = compare.differences_of(of, of.labels)[compare.OVER]
    return {
        (of.labels[i], of.labels[i + 1 + k]): text
        for i, row in enumerate(triangle)
        for k, text in enumerate(row)
    }


@pytest.mark.parametrize("metric", TWO, ids=lambda metric: metric.column)
def test_every_two_methods_differ_as_from_a_baseline(board_of_three, metric):
    of = board(board_of_three.table, "kd", metric)
    between = differences(of)
    assert len(between) == 6
    for base in of.labels:
        other = board(of.table, base, metric)
        for label in of.labels[: of.labels.index(base)]:
            row = other.summary.loc[label]
            expected = f"{row['delta']:{metric.signed}} [{row['low']:{metric.signed}}, {row['high']:{metric.signed}}]"
            assert between[label, base] == f"{expected} ({row['delta_n']:.0f})"


def test_compared_methods_are_those_that_the_page_names(tmp_path):
    """Metrics rank methods otherwise than top-1 does, whose order the page's places are in."""
    rows = grid([A, PAIRS[0]], dkd=2.0, crd=1.0)
    nll = {"dkd": 1.5, "crd": 0.5, "kd": 1.0}  # the best by top-1 is the worst
    rows = [{**row, "nll": nll[row["method"]] + 0.01 * row["seed"] ** 2 * len(row["method"])} for row in rows]
    (found,) = boards(tmp_path, rows)
    shown = view(found, NO_CURVES, [])
    assert [shown["labels"].index(name) for name in ("dkd", "crd", "kd")] == [0, 1, 2]
    for metric in TWO:
        (own,) = [each for each in shown["metrics"] if each["key"] == metric.column]
        for i, j in [(0, 1), (0, 2), (1, 2)]:
            row = board(found.table, shown["labels"][j], metric).summary.loc[shown["labels"][i]]
            assert own["over"][i][j - i - 1].startswith(
                f"{row['delta']:{metric.signed}} [{row['low']:{metric.signed}}"
            )


def test_costs_follow_the_choice_and_have_no_difference(tmp_path):
    (found,) = boards(tmp_path, timed_grid())
    shown = view(found, NO_CURVES, [])
    (cost,) = [metric for metric in shown["metrics"] if metric["key"] == "step_cost"]
    dkd = shown["labels"].index("dkd")
    assert [column["cells"][dkd][0] for column in cost["pairs"]] == ["1.25", "2.00"]
    assert cost["scopes"][0]["columns"][0]["cells"][dkd][0] == "1.58"  # the geometric mean
    assert [scope["means"][dkd] for scope in cost["scopes"]] == pytest.approx([1.58114, 1.25, 2.0])
    assert cost["over"] == []


def test_a_restricted_table_knows_no_other_pair(board_of_three):
    one = restricted(board_of_three.table, [COLUMN])
    assert one.pairs == [COLUMN]
    assert one.heading == board_of_three.table.heading


# --- runs and curves ---


def test_details_have_attempts_parameters_costs_and_reasons(tmp_path):
    failed = run("kd", None, status="oom", attempt=1, run_id=hex12("a"), error="out of memory")
    done = {**failed, "status": "ok", "top1": 70.0, "attempt": 2, "run_id": hex12("b"), "error": None}
    done |= {"params": '{"temperature":4.0}', "peak_mem_mb": 919.4, "extra_params": 1234}
    found = boards(tmp_path, [failed, done, run("fitnet", None, status="skipped", error="no stages")])
    entries = runs.entries(found[0])
    kd, fitnet = (entries[f"{found[0].labels.index(label)}-0"] for label in ("kd", "fitnet"))
    assert kd["params"] == [("temperature", "4.0")]
    assert ("skipped", "no stages") in fitnet["facts"]
    known = runs.histories(found, store.read(tmp_path / "s.csv"), NO_CURVES)
    attempts = known["runs"][done["cell_id"]]["attempts"]
    lines = [dict(zip(known["headings"], attempt, strict=True)) for attempt in attempts]
    assert [line["status"] for line in lines] == ["oom", "ok"]
    assert [line["counted"] for line in lines] == ["no", "yes"]
    assert [line["run"] for line in lines] == [failed["run_id"], done["run_id"]]
    assert lines[0]["error"] == "out of memory"
    costs = (lines[1]["train s"], lines[1]["peak MB"], lines[1]["extra parameters"])
    assert costs == ("240.0", "919", "1,234")


def test_curves_are_thinned_to_measured_points_and_both_ends():
    line = {"cell_id": "1", "run_id": "run"}
    frame = pd.DataFrame([line | {"epoch": e, "term": "loss", "value": 1000.0 + e} for e in range(1, 241)])
    frame = pd.concat([frame, pd.DataFrame([line | {"epoch": 9, "term": "top1", "value": 50.0}])])
    drawn = curves.of_runs(frame, {"1"})["1"]
    epochs, values = drawn["loss"]
    assert (epochs[0], epochs[-1], len(epochs)) == (1, 240, curves.MANY)
    assert values == [1000.0 + epoch for epoch in epochs]
    assert max(b - a for a, b in itertools.pairwise(epochs)) == 5
    assert drawn["top1"] == [[9], [50.0]]


def test_curves_of_methods_are_means_over_seeds(tmp_path):
    rows = runs_of("kd", 70.0, 72.0)
    (found,) = boards(tmp_path, rows)
    frame = pd.DataFrame(
        {"cell_id": row["cell_id"], "run_id": row["run_id"], "epoch": epoch, "term": "top1", "value": epoch * (1.0 + i)}
        for i, row in enumerate(rows)
        for epoch in (1, 2)
    )  # fmt: skip
    drawn = curves.of_methods(found, frame)
    assert drawn["lines"] == [[0, 0, "top1", "", [1, 2], [1.5, 3.0], [0.7071, 1.414]]]
    assert (drawn["named"], drawn["seconds"]) == ([0], [[1.0]])


# --- the other pages ---


def test_the_index_names_every_suite_with_its_best_method(page, tmp_path):
    for name in ("mine", "no-page", "bench"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "index.html").write_text("a page")
    for name in ("mine", "no-page"):
        text = leaderboard.csv(name, boards_of(page.parents[2]), [])
        (tmp_path / name / "leaderboard.csv").write_text(text)
    index.write(tmp_path)
    text = (tmp_path / "index.html").read_text("utf-8")
    assert re.findall(r'<a href="([^"]+)/index.html">', text) == ["mine"]
    assert "<td>bickd</td>" in text
    assert "cifar100, test split, 240 epochs" in text


def test_the_browser_of_published_numbers_has_all_of_them(page):
    known = data_of(page.parents[1] / "published.html")
    rows = load()
    for column in known["columns"]:
        texts = [column["said"][code] for code in column["codes"]]
        if column["name"] in ("value", "std", "runs"):
            assert [float(text or "nan") for text in texts] == pytest.approx(
                rows[column["name"]], nan_ok=True
            )
        else:
            assert texts == list(rows[column["name"]])
    assert set(known["sources"]) == set(rows["key"])


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("arXiv:2203.08679 / README github.com/megvii-research/mdistiller", "https://arxiv.org/abs/2203.08679"),
        ("README github.com/AberHu/Knowledge-Distillation-Zoo (200 epochs)", "https://github.com/AberHu/Knowledge-Distillation-Zoo"),
        ("https://github.com/megvii-research/mdistiller/issues/7", "https://github.com/megvii-research/mdistiller/issues/7"),
    ],
)  # fmt: skip
def test_a_source_leads_to_its_paper_or_repository(source, address):
    assert published.address(source) == [address]


def test_a_source_without_an_address_has_no_link():
    assert published.address("a table on paper") == []
