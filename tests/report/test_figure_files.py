"""Figures as files: every format, provenance, data beside them, and that little or nothing to draw is no error."""

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
import pypdf
import pytest
from matplotlib.text import Text

from kdbench.report import figures
from kdbench.report.figures.files import Picture
from kdbench.report.figures.sheet import PAPER, SCREEN, Canvas
from kdbench.report.render import paper_figures
from kdbench.results import store
from tests.support.figures import FOOTER, keep, tau
from tests.support.scenarios import PAIRS, A, boards, grid, hex12, run, runs


def everything(path):
    """A suite with a sweep, an ablation, curves and details, a diverged and a skipped cell."""
    rows = [
        *grid([A, PAIRS[0]], dkd=0.5),
        *tau(4.0, 71.0, 71.5),
        *tau(1.0, 70.0, 70.5),
        *tau(2.0, 70.4, 71.0),
    ]
    rows += [*tau(4.0, 70.0, 70.1, beta=0.0), *runs("ce", 66.0, 67.0, pair=(None, A[1]))]
    rows += [
        run("crd", None, status="diverged"),
        run("fitnet", None, status="skipped", error="stages differ"),
    ]
    rng = np.random.default_rng(0)
    for row in rows:
        if row["status"] == "ok":
            p, q = (m / m.sum(axis=1, keepdims=True) for m in (rng.random((2, 4, 4)) + 3 * np.eye(4)))
            bins = np.column_stack([np.full(15, 20.0), np.linspace(1, 19, 15), np.linspace(0, 20, 15)])
            arrays = {"calibration": bins, "student_class_means": p} | (
                {"teacher_class_means": q} if row["teacher"] else {}
            )
            keep(path / "s.details", row, **arrays)
    found = boards(path, rows)
    lines = [
        {"cell_id": row["cell_id"], "epoch": e, "term": term, "value": 1.0 + e}
        for row in rows for e in (1, 2) for term in ("top1", "loss")
    ]  # fmt: skip
    return found, pd.DataFrame(lines), [path / "s.details"]


def write(found, lines, folder):
    """The figures of these boards in a folder: name -> what pages say of each."""
    drawings = list(figures.of_boards(found, lines, [folder / "none"], "kd", FOOTER))
    figures.write_data(drawings, folder)
    return {picture.name: picture for picture, _ in figures.write(drawings, SCREEN, FOOTER, folder)}


FIGURES = {
    "ablation-bickd", "calibration", "cost", "curves", "forest", "heatmap", "similarity", "sweep-bickd-tau",
}  # fmt: skip


TWICE = {"calibration", "curves", "forest"}  # drawn a second time

DEVICES = "; ".join(f"NVIDIA H100 80GB HBM3 number {i}" for i in range(60))


@pytest.fixture(scope="module")
def all_written(tmp_path_factory):
    """(the folder of first, second and paper, each one's figures by name)"""
    path, drawn = tmp_path_factory.mktemp("all"), {}
    inputs = everything(path)
    footer = [*FOOTER, DEVICES]
    drawings = list(figures.of_boards(*inputs, "kd", footer))
    for folder in (path / "first", path / "second", path / "paper"):
        folder.mkdir()
        sheet = PAPER if folder.name == "paper" else replace(SCREEN, formats=("svg", "png", "pdf"))
        chosen = [one for one in drawings if folder.name != "second" or one.name in TWICE]
        shown = figures.write(chosen, sheet, footer, folder)
        drawn[folder.name] = {picture.name: figure for picture, figure in shown}
    for folder in (path / "first", path / "second"):
        figures.write_data(drawings, folder)
    return path, drawn


def test_every_figure_has_its_data_beside_it(all_written):
    folder, drawn = all_written[0] / "first", all_written[1]["first"]
    assert set(drawn) == FIGURES
    pages = {"ablation-bickd.md", "similarity.md", "similarity-scores.csv", "sweep-bickd-tau.md"}
    names = {f"{name}.{kind}" for name in FIGURES for kind in ("csv", "png", "svg", "pdf")}
    assert {path.name for path in folder.iterdir()} == names | pages
    for name in FIGURES:
        assert len(pd.read_csv(folder / f"{name}.csv")), name
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()[:500]
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_same_rows_same_figures(all_written):
    first, second = all_written[0] / "first", all_written[0] / "second"
    assert {path.stem for path in second.glob("*.pdf")} == TWICE
    for path in second.iterdir():
        assert path.read_bytes() == (first / path.name).read_bytes(), path.name


def test_a_papers_figures_say_nothing_but_their_files_do(all_written):
    for name, figure in all_written[1]["paper"].items():
        assert figure.get_figwidth() in (3.3, 6.9), name
        assert figure.get_figheight() <= 4.6, name
        words = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
        assert not [t for t in words if "240 epochs" in t.get_text() or "recipe r1" in t.get_text()], name
        assert min(t.get_fontsize() for t in words) >= 5, name
        size = figure.bbox.padded(1).extents
        for ax in figure.findobj(matplotlib.axes.Axes):
            if ax.get_visible():
                left, bottom, right, top = ax.get_tightbbox().extents
                assert left >= size[0], name
                assert bottom >= size[1], name
                assert right <= size[2], name
                assert top <= size[3], name
        title, _, provenance = figure.facts
        assert "240 epochs" in title
        assert provenance == " ".join([*FOOTER, DEVICES])
        file = all_written[0] / "paper" / f"{name}.pdf"
        assert pypdf.PdfReader(file).metadata["/Keywords"] == provenance


def test_provenance_is_in_pictures_of_every_format(tmp_path):
    sheet = replace(PAPER, formats=("png", "svg")).saying(["made by 3 of 4 rows"])
    figure, _ = Canvas(sheet, sheet.column, "A title", ["how to read"]).draw([1.0])
    sheet.save(figure, tmp_path / "x")
    kept = PIL.Image.open(tmp_path / "x.png").text
    assert (kept["Title"], kept["Description"], kept["Source"]) == figure.facts
    head = (tmp_path / "x.svg").read_text("utf-8").partition("</metadata>")[0]
    assert all(fact in head for fact in figure.facts)


def test_fonts_of_a_pdf_are_true_type(all_written):
    for name in FIGURES:
        fonts = pypdf.PdfReader(all_written[0] / "paper" / f"{name}.pdf").pages[0]["/Resources"]["/Font"]
        kinds = {font.get_object()["/Subtype"] for font in fonts.values()}
        assert "/Type3" not in kinds, name


def test_every_figure_ends_with_the_whole_footer_below_all_else(all_written):
    for name, figure in all_written[1]["first"].items():
        (footer,) = [text for text in figure.findobj(Text) if "number 59" in text.get_text()]
        assert " ".join([*FOOTER, DEVICES]) in " ".join(footer.get_text().split()), name
        left, bottom, right, top = footer.get_window_extent().extents
        assert left >= 0, name
        assert bottom >= 0, name
        assert right <= figure.bbox.width, name
        shown = [ax for ax in figure.findobj(matplotlib.axes.Axes) if ax.get_visible()]
        assert min(ax.get_tightbbox().y0 for ax in shown) >= top, name


@pytest.mark.parametrize("left", ["one run", "no baseline", "only failures", "no teacher", "foreign params"])
def test_little_to_draw_is_no_error(tmp_path, left):
    rows = {
        "one run": [run("kd")],
        "no baseline": [*runs("dkd", 70.0, 71.0), *runs("ce", 60.0, 61.0)],
        "only failures": [run("kd", None, status="error", epochs_done=None, train_s=None)],
        "no teacher": runs("ce", 60.0, 61.0, pair=(None, "resnet20")),
        "foreign params": [
            run("kd", params=text, variant=str(i))
            for i, text in enumerate(('{"a":null}', '{"a":{"b":1}}', '{"a":[1]}'))
        ],
    }[left]
    found = boards(tmp_path, rows)
    none = pd.DataFrame(columns=store.CURVE_COLUMNS)
    (tmp_path / "without").mkdir()
    assert write(found, none, tmp_path / "without") == {}
    assert list((tmp_path / "without").iterdir()) == []
    lines = pd.DataFrame(
        [{"cell_id": row["cell_id"], "epoch": 1, "term": "top1", "value": 1.0} for row in rows]
    )
    (tmp_path / "with").mkdir()
    captions = write(found, lines, tmp_path / "with")
    assert set(captions) == ({"curves"} if left != "only failures" else set())
    files = {f"{name}.{kind}" for name in captions for kind in ("png", "csv")}
    assert {path.name for path in (tmp_path / "with").iterdir() if path.stat().st_size} == files


def test_each_table_has_its_own_figures(tmp_path):
    rows = grid([A, PAIRS[0]], dkd=0.5)
    rows += [run(r["method"], r["top1"], A, r["seed"], split="holdout") for r in rows[:6]]
    found = boards(tmp_path, rows)
    assert [b.table.split for b in found] == ["test", "holdout"]
    none = pd.DataFrame(columns=store.CURVE_COLUMNS)
    captions = write(found, none, tmp_path)
    slug = f"holdout-240ep-{hex12('r1')[:8]}"  # the holdout has one pair: no heat map
    assert {name: caption.table for name, caption in captions.items()} == {
        "forest": 0, "heatmap": 0, "cost": 0, f"forest-{slug}": 1, f"cost-{slug}": 1,
    }  # fmt: skip
    headings = [b.table.heading for b in found]
    for name, caption in captions.items():
        assert set(pd.read_csv(tmp_path / f"{name}.csv")["table"]) == {headings[caption.table]}


def test_latex_shows_the_format_that_was_written(all_written):
    _, drawn = all_written
    figure = drawn["paper"]["forest"]
    for formats, command in ((("svg",), r"\includesvg{forest.svg}"), (("svg", "pdf"), "{forest.pdf}")):
        picture = Picture("forest", "Differences", 0, formats)
        lines = paper_figures.tex("s", [(picture, figure)], replace(PAPER, formats=formats)).splitlines()
        (shown,) = [line for line in lines if command in line]
        assert "%" not in shown  # a comment would swallow it
