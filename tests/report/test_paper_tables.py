"""The tables and the figure of published numbers: their entries, their files, and how long they take."""

import dataclasses
import itertools
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from kdbench.data.catalog import CATALOG
from kdbench.report import figures, reproduction
from kdbench.report.figures import published
from kdbench.report.figures.sheet import SCREEN
from kdbench.report.provenance import provenance
from kdbench.report.render import paper_tables
from kdbench.report.render import reproduction as beside
from kdbench.report.reproduction import literature
from kdbench.results import store
from kdbench.utils.method_facts import shipped
from tests.support.reproduction import CROSS, FOLLOWS, B, curves, frame, read, run, runs
from tests.support.scenarios import hex12


def everything():
    """Pairs of one and of two families; one method missing on one pair, one skipped, two views, a plug-in."""
    skipped = run("fsp", None, status="skipped", error="channels differ", top1_best=None, top5=None)
    return [
        *runs("ce", 69.0, 69.1, pair=("", "resnet20")),
        *runs("kd", 70.6, 70.7),
        *runs("kd", 70.6, 70.7, pair=B),
        *runs("kd", 67.3, 67.4, pair=CROSS),
        *runs("rkd", 69.6, 69.7),
        *runs("mlkd", 72.0, 72.1),
        *runs("my_own", 71.0, 71.1),
        skipped,
    ]


def grid(layout):
    """(name of the row, pair) -> the lines of the cell, from markdown."""
    lines = paper_tables.markdown("cifar100", layout, [], []).splitlines()
    rows = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines if text.startswith("| ")]
    return {(row[0], pair): cell for row in rows[1:] for pair, cell in zip(rows[0][1:], row[1:], strict=True)}


def test_the_papers_tables(tmp_path):
    same, cross, two = paper_tables.layouts(frame(tmp_path, everything()))
    cells = grid(same)
    assert [row for row, _ in cells][::2] == (
        ["teacher", "student (ce)", "logit", "kd", "feature", "fsp", "relation", "rkd", "other", "my_own"]
    )
    a, b = "resnet56 → resnet20", "resnet110 → resnet20"
    assert cells["teacher", a] == "72.34<br>72.34 [CRD]"
    assert cells["student (ce)", a] == "69.05 ± 0.07 (2)<br>69.06 last [CRD]<br>-0.01 agrees"
    assert cells["kd", b] == "70.65 ± 0.07 (2)<br>70.66–70.67 last [CTKD CRD]<br>-0.01 agrees"
    assert cells["rkd", b] == "–<br>69.25 last [CRD]"  # missing
    assert cells["fsp", a] == "n/a<br>69.95 last [CRD]"
    assert cells["my_own", a] == "71.05 ± 0.07 (2)"
    assert {row for row, _ in grid(cross)} == {"teacher", "student (ce)", "logit", "kd"}
    assert grid(two)["mlkd", a] == "72.05 ± 0.07 (2)"


def test_families():
    assert paper_tables.family("resnet32x4") == paper_tables.family("timm/resnet34")
    assert (
        len(
            {
                paper_tables.family(name)
                for name in ("wrn_40_2", "resnet8x4", "vgg8", "mobilenetv2", "shufflenetv2")
            }
        )
        == 5
    )


def test_rows_are_by_family_then_by_year(tmp_path):
    """A plug-in comes last; of one year, by name."""
    methods = ("my_own", "tfkd", "rkd", "fitnet", "dkd", "kd", "wsld", "at")
    rows = [row for name in methods for row in runs(name, 70.0, 70.1)]
    (same, *_) = paper_tables.layouts(frame(tmp_path, [*runs("ce", 69.0, pair=("", "resnet20")), *rows]))
    (column,) = {pair for _, pair in grid(same)}
    named = [row for row, pair in grid(same) if pair == column]
    logit, feature = ["logit", "kd", "wsld", "dkd"], ["feature", "fitnet", "at"]
    others = ["relation", "rkd", "self", "tfkd", "other", "my_own"]
    assert named == ["teacher", "student (ce)", *logit, *feature, *others]


def test_imagenet_has_top1_and_top5(tmp_path, monkeypatch):
    known = dataclasses.replace(CATALOG["imagenet"], test_split_id=hex12("their own"))
    monkeypatch.setattr(reproduction, "CATALOG", {"imagenet": known})
    own = literature("imagenet")
    here = {"suite": "imagenet", "dataset": "imagenet", "recipe_id": own.recipe_id, "epochs_done": own.epochs}
    here |= {"split_id": "their own", "tested": 50_000}
    rows = runs("crd", 71.1, 71.2, pair=("resnet34", "resnet18"), **here)
    (layout,) = paper_tables.layouts(frame(tmp_path, rows, "imagenet"))
    assert layout.name == "paper_imagenet"
    crd = {pair: text for (row, pair), text in grid(layout).items() if row == "crd"}
    assert crd == {
        "resnet34 → resnet18": "71.15 ± 0.07 (2)<br>71.17 unknown [CRD]<br>-0.02 undecided",
        "resnet34 → resnet18, top5": "90.00 ± 0.00 (2)<br>90.13 unknown [CRD]<br>-0.13 undecided",
    }


def test_latex_is_a_booktabs_table_with_every_cell(tmp_path):
    layout = paper_tables.layouts(frame(tmp_path, everything()))[0]
    text = paper_tables.tex("cifar100", layout, ["50% & more"], ["foot_note"])
    body = [row for row in text.splitlines() if row.endswith(r" \\")]
    assert text.count(r"\toprule") == text.count(r"\bottomrule") >= 1
    assert any(row.startswith("kd & 70.65 $\\pm$ 0.07 (2)") for row in body)
    assert any(r"70.66 last \cite{CRD}" in row for row in body)
    assert r"50\% \& more" in text
    assert r"foot\_note" in text
    assert not set("±–Δ†→") & set(text)


def test_points_are_by_the_published_rule_and_comparable(tmp_path):
    short = {"recipe_id": "short", "epochs_done": 4}
    rows = [
        *runs("kd", 70.6, 70.7),
        *runs("dkd", 71.9, 72.0),
        *runs("kd", 56.0, **short),
        *runs("mlkd", 72.0),
    ]
    data = frame(tmp_path, rows)
    points = published.frame(data).set_index("label")
    assert sorted(points.index) == ["dkd", "kd"]  # kd of the full recipe alone
    assert points.loc["kd", "ours"] == pytest.approx(70.65)
    dkd = points.loc["dkd"]
    assert (dkd["published"], dkd["ours"]) == (71.97, pytest.approx(72.25))  # best epochs
    (ax,) = [ax for ax in published.draw(points.reset_index(), SCREEN).findobj(Axes) if ax.get_visible()]
    assert ax.get_ylim()[0] > 70
    assert published.frame(data[~data["comparable"]]).empty


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_labels_never_overlap(count):
    wanted = np.sort(np.random.default_rng(count).choice([70.0, 70.01, 71.0, 74.0], count))
    places = published.apart(wanted, 0.1, 69.0, 75.0)
    assert (np.diff(places) >= 0.1 - 1e-9).all()
    assert places.min() >= 69.0
    assert places.max() <= 75.0 + 1e-9
    assert published.apart(np.array([70.0, 72.0]), 0.1, 69.0, 75.0).tolist() == [70.0, 72.0]


NAMES = ["paper_cross", "paper_same", "paper_twoview"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    found = read(tmp_path, everything())
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        data, footer = reproduction.frame("cifar100", found), provenance("cifar100", found)
        shown = [picture for picture, _ in figures.write([beside.drawing(data)], SCREEN, footer, folder)]
        beside.write(folder, "cifar100", data, footer, shown)
    ours = [f"{name}.{kind}" for name in NAMES for kind in ("csv", "md", "tex")]
    ours += ["published.bib", "published.png", "reproduction.csv", "reproduction.md"]
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(ours)
    for name in ours:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    whole = pd.read_csv(folders[0] / "reproduction.csv")
    assert whole["provenance"].str.startswith("Suite cifar100; recipe").all()
    text = (folders[0] / "reproduction.md").read_text("utf-8")
    assert (
        "| resnet56 → resnet20 | kd | 70.65 ± 0.07 (2) | +0.30 | 70.66 [CRD] | last | 5 | -0.01 | agrees |"
        in text
    )
    assert (
        "kd on resnet56 → resnet20: 71.4 unknown, 1 run [RepDistiller#62], 71.54 unknown, 1 run [CTKD#23]"
        in text
    )
    assert "[CRD] arXiv:1910.10699 / README github.com/HobbitLong/RepDistiller" in text


def test_nothing_published_is_said_and_gives_no_table_or_figure(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "paper_same.md").write_text("of rows that have gone", "utf-8")
    found = read(tmp_path, runs("kd", 90.0, 91.0, suite="digits", dataset="digits"), "digits")
    data = reproduction.frame("digits", found)
    said = beside.write(folder, "digits", data, [])
    assert sorted(path.name for path in folder.iterdir()) == ["reproduction.csv", "reproduction.md"]
    text = (folder / "reproduction.md").read_text("utf-8")
    assert "Nothing is published, by this suite's protocol, of what was run." in text
    assert "No figure: no published number can be compared with ours." in text
    assert "Nothing is published" in said
    assert beside.drawing(data).data.empty


def test_report_print_stands_in_80_columns_and_needs_no_torch(tmp_path):
    long = "alpha=18 beta=36 standardize=true temperature=3"
    weak = {"teacher_top1": 60.0, "teacher_id": "bad000000000"}
    rows = [*runs("kd", 70.6, 70.7), *runs("dkd", 72.1, 70.2, variant=long), *runs("at", 70.1, 70.2, **weak)]
    store.append(tmp_path / "cifar100.csv", rows)
    store.append(tmp_path / "cifar100.curves.csv", curves(rows).to_dict("records"), store.CURVE_COLUMNS)
    options = ["report", "--results", str(tmp_path), "--out", str(tmp_path / "out"), "--print"]
    code = (
        f"import sys; from kdbench.cli.main import main; main({options!r}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = done.stdout[done.stdout.index("cifar100: published numbers beside ours") :]
    assert max(map(len, text.splitlines())) <= 80
    assert "  kd                    70.65 ± 0.07 (2)        70.66   -0.01  undecided" in text.splitlines()
    assert "    temperature=3       71.15 ± 1.34 (2)        72.32   -0.87  undecided" in text.splitlines()
    assert "  at                    70.15 ± 0.07 (2)        70.55   -0.40  undecided †" in text.splitlines()
    assert (tmp_path / "out" / "cifar100" / "paper_same.tex").is_file()


@pytest.mark.slow
def test_ten_thousand_rows_take_seconds(tmp_path):
    pairs = sorted(FOLLOWS.pairs)
    methods = sorted(set(shipped()) - {"ce"})
    rows = [
        run(method, 70.0 + 0.01 * (i % 97), pairs[i % len(pairs)], seed, recipe_id=FOLLOWS.recipe_id)
        for i, (method, seed) in enumerate(itertools.product(methods, range(234)))
    ]
    found = read(tmp_path, rows)
    start = time.process_time()
    data = reproduction.frame("cifar100", found)
    for layout in paper_tables.layouts(data):
        paper_tables.markdown("cifar100", layout, [], [])
    beside.text("cifar100", data)
    assert len(rows) > 10_000
    assert time.process_time() - start < 8


def test_sources_are_cited_and_each_is_in_the_bibliography(tmp_path):
    data = frame(tmp_path, everything())
    beside.write(tmp_path, "cifar100", data, [])
    bib = (tmp_path / "published.bib").read_text("utf-8")
    entries = set(re.findall(r"^@\w+{(.+),$", bib, re.MULTILINE))
    cited = set()
    for name in NAMES:
        tex = (tmp_path / f"{name}.tex").read_text("utf-8")
        cited |= {key for keys in re.findall(r"\\cite{(.*?)}", tex) for key in keys.split(",")}
        assert "{[}CRD{]}" not in tex
    assert "CRD" in cited
    assert cited <= entries
    (crd,) = re.findall(r"@inproceedings{CRD,(.*?)\n}", bib, re.DOTALL)
    assert "Contrastive Representation Distillation" in crd
