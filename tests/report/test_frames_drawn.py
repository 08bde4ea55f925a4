"""The frames that figures draw, and their colours."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from kdbench.report.figures import curves, forest, style
from kdbench.report.figures.looks import MARKERS, PLACES, look
from kdbench.report.tables import tables
from kdbench.results import store
from kdbench.utils.method_facts import shipped
from tests.support.figures import SHEET, texts
from tests.support.scenarios import COLUMN, PAIRS, A, boards, grid, run, runs


def test_forest_frame_holds_seeds_and_their_mean(tmp_path):
    (one,) = boards(tmp_path, grid([A, PAIRS[0]], dkd=0.5))
    frame = forest.frame(one)
    part = frame[(frame["panel"] == COLUMN) & (frame["label"] == "dkd")]
    mean, seeds = part[part["dot"] == ""], part[part["dot"] != ""]
    assert seeds["dot"].tolist() == ["0", "1", "2"]
    assert mean["delta"].item() == pytest.approx(seeds["delta"].mean())
    assert "kd" not in set(frame["label"])


def test_forest_frame_marks_diverged_seeds_and_keeps_the_others(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=0.5), *runs("crd", 71.0, 71.5)]
    rows += [run(method, None, seed=2, status="diverged") for method in ("crd", "lost")]
    (one,) = boards(tmp_path, rows)
    frame = forest.frame(one)
    means = frame[frame["dot"] == ""].set_index(["panel", "label"])
    over = "mean over 2 pairs"
    assert means.loc[(COLUMN, "crd"), "note"] == means.loc[(over, "crd"), "note"] == "✗ 1 of 3"
    assert (
        means.loc[(COLUMN, "crd"), "delta"] == means.loc[(over, "crd"), "delta"] == pytest.approx(1.09)
    )  # of 1.00 and 1.18
    assert means.loc[(COLUMN, "lost"), "note"] == means.loc[(over, "lost"), "note"] == "✗ 1 of 1"
    assert np.isnan(means.loc[(COLUMN, "lost"), "delta"])
    assert (frame[frame["panel"] == COLUMN].query("label == 'crd'")["dot"] != "").sum() == 2
    figure = forest.draw(frame, SHEET, "kd")
    assert {text.strip() for text in texts(figure) if "✗ 1 of" in text} == {"✗ 1 of 3", "✗ 1 of 1"}
    assert any(forest.DIVERGED[:20] in text for text in texts(figure))
    sound = forest.draw(frame[frame["label"] == "dkd"], SHEET, "kd")
    assert not any(forest.DIVERGED[:20] in text for text in texts(sound))


def test_a_forest_of_one_pair_is_as_wide_as_a_column(tmp_path):
    (one,) = boards(tmp_path / "one", grid([A], dkd=0.5))
    (two,) = boards(tmp_path / "two", grid([A, PAIRS[0]], dkd=0.5))
    widths = [forest.draw(forest.frame(each), SHEET, "kd").get_figwidth() for each in (one, two)]
    assert widths == [3.5, SHEET.wide]


def test_curves_are_means_over_seeds_of_an_epochs_last_value(tmp_path):
    rows = runs("kd", 70.0, 71.0)
    store.append(tmp_path / "s.csv", rows)
    values = [(0, 1, 10.0), (0, 1, 20.0), (1, 1, 40.0)]  # seed 0: epoch 1 again after an interruption
    lines = pd.DataFrame(
        [{"cell_id": rows[s]["cell_id"], "epoch": e, "term": "top1", "value": v} for s, e, v in values]
    )
    (table,) = tables(store.read(tmp_path / "s.csv"))
    frame = curves.frame(table, lines)
    assert frame[["mean", "n"]].to_numpy().tolist() == [[30.0, 2.0]]
    assert frame["std"].item() == pytest.approx(200**0.5)


@pytest.mark.parametrize("last", [2.82, 3.5, 4.3, 0.9, 0.04])
def test_losses_of_any_span_have_a_few_ticks(tmp_path, last):
    rows = runs("kd", 70.0)
    store.append(tmp_path / "s.csv", rows)
    losses = np.geomspace(4.39, last, 6)
    lines = pd.DataFrame(
        [
            {"cell_id": rows[0]["cell_id"], "epoch": e, "term": "loss", "value": v}
            for e, v in enumerate(losses, 1)
        ]
    )
    (table,) = tables(store.read(tmp_path / "s.csv"))
    figure = curves.draw(curves.frame(table, lines), SHEET, "kd")
    ax = next(ax for ax in figure.findobj(Axes) if ax.get_yscale() == "log")
    low, high = ax.get_ylim()
    assert 2 <= sum(low <= tick <= high for tick in ax.get_yticks()) <= 7


def test_a_diverged_run_is_a_line_up_to_its_last_finite_value(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), run("dkd", None, status="diverged"), run("dkd", 70.0, seed=1)]
    rows += [run("crd", None, seed=1, status="diverged")]
    store.append(tmp_path / "s.csv", rows)
    values = [(0, 1, 2.0), (1, 1, 4.0), (2, 1, 5.0), (2, 2, 90.0), (2, 3, np.nan), (3, 1, 4.5), (4, 1, 3.0)]
    lines = pd.DataFrame(
        [{"cell_id": rows[r]["cell_id"], "epoch": e, "term": "loss", "value": v} for r, e, v in values]
    )
    (table,) = tables(store.read(tmp_path / "s.csv"))
    frame = curves.frame(table, lines)
    drawn = {(line["label"], line["diverged"]): [] for line in frame.to_dict("records")}
    for line in frame.to_dict("records"):
        drawn[line["label"], line["diverged"]].append((line["epoch"], line["mean"]))
    assert drawn == {
        ("kd", ""): [(1, 3.0)],
        ("dkd", ""): [(1, 4.5)],  # the seed that lived, alone
        ("dkd", "0"): [(1, 5.0), (2, 90.0)],
        ("crd", "1"): [(1, 3.0)],
    }
    figure = curves.draw(frame, SHEET, "kd")
    crosses = [line for line in figure.findobj(Line2D) if line.get_marker() == "x"]
    ends = sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in crosses)
    assert ends == [(1, 3.0), (2, 90.0)]
    assert any("a run that diverged" in text.replace("\n", " ") for text in texts(figure))


def test_every_seed_of_a_forest_has_a_mark(tmp_path):
    near = {f"m{i}": 0.1 * i for i in range(9)}
    far = runs("broken", 30.0, 31.0, 70.2)  # two seeds far below kd, one as it
    (one,) = boards(tmp_path, [*grid([A], **near), *far])
    frame = forest.frame(one)
    figure = forest.draw(frame, SHEET, "kd")
    (ax,) = figure.findobj(Axes)
    left, right = ax.get_xlim()
    marks = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_sizes()[0] in (6, 8)]
    drawn = np.concatenate([c.get_offsets() for c in marks])
    assert len(drawn) == (frame["dot"] != "").sum()
    assert ((left <= drawn[:, 0]) & (drawn[:, 0] <= right)).all()
    heads = np.concatenate([c.get_offsets() for c in marks if c.get_sizes()[0] == 8 and len(c.get_offsets())])
    assert len(np.unique(heads, axis=0)) == 2  # beside each other, at the edge
    assert (heads[:, 0] < left + 0.05 * (right - left)).all()


def test_every_method_has_a_look_of_its_own_whoever_is_with_it():
    names = [*shipped(), *(f"mine{i}" for i in range(30))]
    assert len({str(look(name)) for name in names}) == len(names)
    assert set(PLACES) <= set(shipped())
    assert len(set(PLACES)) == len(PLACES)
    assert style.lines(["kd", "dkd"])["dkd"] == style.lines(names)["dkd"] == look("dkd")._asdict()
    assert look("ce").color != look("lskd").color


def test_neighbours_of_the_palette_differ_in_grey_too():
    looks = [look(name) for name in PLACES]
    for i in range(len(looks) - 27):
        near = looks[i : i + 28]
        assert len({(str(one.linestyle), one.marker) for one in near}) == 28
    assert len({one.color for one in looks[:11]}) == 11


def test_a_plug_in_is_dark_enough_and_unlike_the_palette():
    for name in (f"mine{i}" for i in range(200)):
        linear = np.array(to_rgb(look(name).color)) ** 2.2
        luminance = float(linear @ [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) > 3  # contrast with white, as WCAG counts it
        assert look(name).marker not in MARKERS


def test_settings_of_a_method_are_tints_of_its_colour():
    settings = ["dkd beta=1", "dkd beta=2", "dkd beta=4", "dkd (code ab12)"]
    looks = [look(label) for label in settings]
    assert len({str(one) for one in looks}) == 4
    assert {style.colour(label) for label in settings} == {look("dkd").color}
    base = np.array(to_rgb(look("dkd").color))
    for one in looks:
        white = (np.array(to_rgb(one.color)) - base) / (1 - base)
        assert white == pytest.approx(white[0], abs=0.02)
        assert 0 <= white[0] <= 0.5
