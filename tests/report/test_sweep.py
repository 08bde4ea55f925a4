"""Sweeps and ablations: which runs belong together, what is best, what is left out, and how it is shown."""

import matplotlib
import numpy as np
import pytest

from kdbench.report.figures import ablation, forest, sweep
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.figures import FOOTER, SHEET, setting, tau, texts
from tests.support.scenarios import COLUMN, PAIRS, A, runs


def sweeps(path, rows, baseline="kd", split="holdout"):
    store.append(path / "s.csv", [{**row, "split": split} for row in rows])
    return sweep.frame(tables(store.read(path / "s.csv")), baseline)


def means(frame):
    return frame[frame["seed"].isna()].set_index("value")


# sweeps


def test_a_sweep_is_of_runs_that_differ_in_one_parameter_alone(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *tau(4.0, 72.0, 74.0), *tau(1.0, 70.0, 71.0), *tau(2.0, 71.0, 72.0)]
    rows += tau(8.0, 99.0, 99.0, beta=0.5)  # two differ
    frame = sweeps(tmp_path, rows)
    assert set(frame["parameter"]) == {"tau"}
    assert set(frame["setting"]) == {""}
    found = means(frame)
    assert found["top1"].to_dict() == {"1": 70.5, "2": 71.5, "4": 73.0}
    assert found["std"]["4"] == pytest.approx(2**0.5)
    assert found.index[found["default"]].tolist() == ["4"]
    assert (found["base_mean"] == 70.5).all()
    assert len(frame[frame["seed"].notna()]) == 6


@pytest.mark.parametrize(
    ("scores", "best", "edge"),
    [
        ({1.0: 70, 2.0: 71, 4.0: 73}, ["4"], ["4"]),
        ({1.0: 74, 2.0: 71, 4.0: 73}, ["1"], ["1"]),
        ({1.0: 70, 2.0: 75, 4.0: 73}, ["2"], []),
        ({1.0: 75, 2.0: 75, 4.0: 73}, ["1", "2"], []),  # as good inside
    ],
)
def test_the_edge_is_flagged_where_the_best_lies_there(tmp_path, scores, best, edge):
    found = means(
        sweeps(tmp_path, [row for value, top1 in scores.items() for row in tau(value, float(top1))])
    )
    assert found.index[found["best"]].tolist() == best
    assert found.index[found["edge"]].tolist() == edge


def test_no_value_is_the_best_on_the_test_split(tmp_path):
    rows = [row for value in (1.0, 2.0, 4.0) for row in tau(value, 70.0 + value, 71.0 + value)]
    found = sweeps(tmp_path, rows, split="test")
    assert not found[["best", "edge"]].to_numpy().any()
    page = sweep.markdown(found, "kd", FOOTER)
    assert "**" not in page
    assert "try values on --split holdout" in page
    figure = sweep.draw(found, SHEET, "kd")
    assert "best at the edge" not in texts(figure)
    assert any("try values on --split" in text.replace("\n", " ") for text in texts(figure))


def test_words_have_no_edge(tmp_path):
    usual = {"mode": "both"}
    rows = [*setting("m", 70.0, usual=usual), *setting("m", 71.0, usual=usual, mode="a")]
    rows += setting("m", 72.0, usual=usual, mode="b")
    found = means(sweeps(tmp_path, rows))
    assert found.index.tolist() == ["a", "b", "both"]
    assert found["number"].tolist() == [0.0, 1.0, 2.0]
    assert found["best"].tolist() == [False, True, False]
    assert not found["edge"].any()


def test_a_diverged_seed_leaves_its_value_without_a_mean(tmp_path):
    rows = [*tau(4.0, 70.0, 70.0), *tau(2.0, 71.0, 71.0), *tau(1.0, 99.0)]
    rows += [{**tau(1.0, None, status="diverged")[0], "seed": 1}]
    found = means(sweeps(tmp_path, rows))
    assert found["diverged"].to_dict() == {"1": 1, "2": 0, "4": 0}
    assert np.isnan(found["top1"]["1"])
    assert found.index[found["best"]].tolist() == ["2"]


def test_two_values_are_no_sweep_nor_are_two_versions(tmp_path):
    assert sweeps(tmp_path / "a", [*tau(4.0, 70.0), *tau(1.0, 71.0)]).empty
    rows = [*tau(4.0, 70.0, version=2), *tau(1.0, 71.0, version=2), *tau(2.0, 72.0, version=1)]
    assert sweeps(tmp_path / "b", rows).empty


def test_a_grid_is_a_sweep_per_setting_of_the_other_parameter(tmp_path):
    usual = {"a": 1.0, "b": 1.0}
    rows = []
    for a in (1.0, 2.0, 3.0):
        for b in (1.0, 2.0, 3.0):
            changed = {k: v for k, v in {"a": a, "b": b}.items() if v != 1.0}
            rows += setting("m", 70.0 + a - b, usual=usual, **changed)
    frame = sweeps(tmp_path, rows)
    assert sorted(set(zip(frame["parameter"], frame["setting"], strict=True))) == [
        ("a", ""), ("a", "b=2"), ("a", "b=3"), ("b", ""), ("b", "a=2"), ("b", "a=3"),
    ]  # fmt: skip
    page = sweep.markdown(frame[frame["parameter"] == "a"], "kd", FOOTER)
    assert "| 2 | b=3 | 69.00 (1) |" in page
    assert "| 3 |  | **72.00 (1)** ⚑ |" in page
    assert "| 1 (the suite's) |  | 70.00 (1) |" in page


def scale_and_ticks(frame):
    figure = sweep.draw(frame, SHEET, "kd")
    ax = figure.findobj(matplotlib.axes.Axes)[0]
    return ax.get_xscale(), [text.get_text() for text in ax.get_xticklabels()]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1.0, 2.0, 4.0), "linear"),
        ((0.01, 0.1, 4.0), "log"),
        ((0.0, 0.1, 4.0), "symlog"),
        ((-1.0, 0.1, 4.0), "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_values_span_a_decade(tmp_path, values, scale):
    frame = sweeps(tmp_path, [row for value in values for row in tau(value, 70.0)])
    assert scale_and_ticks(frame) == (scale, [f"{value:g}" for value in values])


def test_the_edge_is_written_into_the_figure(tmp_path):
    rising = sweeps(tmp_path / "a", [row for i, v in enumerate((1.0, 2.0, 4.0)) for row in tau(v, 70.0 + i)])
    inside = sweeps(tmp_path / "b", [row for i, v in enumerate((1.0, 4.0, 2.0)) for row in tau(v, 70.0 + i)])
    assert "best at the edge" in texts(sweep.draw(rising, SHEET, "kd"))
    assert "best at the edge" not in texts(sweep.draw(inside, SHEET, "kd"))


FULL = {"a": 1.0, "b": 2.0, "c": 3, "ce": 0.1, "mode": "both", "flag": True, "zero": 0.0}


@pytest.mark.parametrize(
    ("changed", "label"),
    [
        ({}, ""),
        ({"a": 0.0}, "without a"),
        ({"a": 0.0, "b": 0}, "only c"),
        ({"a": 0.0, "b": 0.0, "c": 0}, "without a, b, c"),
        ({"mode": "x"}, "mode=x"),
        ({"flag": False}, "flag=False"),
        ({"a": 0.0, "mode": "x"}, "without a mode=x"),
        ({"a": 0.5}, None),  # a value of a sweep
        ({"a": 0.0, "b": 1.0}, None),
        ({"zero": 1.0}, None),  # switched on, not off
        ({"added": True}, "added=True"),
    ],
)
def test_components_are_named_by_what_is_left_out(changed, label):
    assert ablation.component(FULL, {**FULL, **changed}, ["a", "b", "c"]) == label


def test_of_two_components_one_is_left_out():
    assert ablation.component({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, ["a", "b"]) == "without a"


def test_components_are_paired_with_the_full_method(tmp_path):
    rows = []
    for pair in (A, PAIRS[0]):
        usual = {"a": 2.0, "b": 1.0 if pair == A else 5.0}  # the suite's own setting of this pair
        rows += [*runs("kd", 70.0, 72.0, pair=pair), *setting("m", 75.0, 78.0, pair=pair, usual=usual)]
        rows += setting("m", 74.0, 76.0, pair=pair, usual=usual, a=0.0)
        rows += setting("m", 99.0, 99.0, pair=pair, usual=usual, a=1.0)  # a sweep's
    rows += [
        *runs("kd", 1.0, 2.0, pair=PAIRS[1]),
        *setting("m", 3.0, 4.0, pair=PAIRS[1], usual={"a": 2.0, "b": 1.0}),
    ]
    store.append(tmp_path / "s.csv", rows)
    (one,) = ablation.boards(tables(store.read(tmp_path / "s.csv")), "m", "kd")
    assert one.table.pairs == [COLUMN, "wrn_40_2 -> wrn_16_2"]  # the third has no component
    assert one.labels == ["m", "m without a", "kd"]
    cell = one.entries.loc["m without a", COLUMN]
    assert (cell["delta"], cell["delta_n"]) == (-1.5, 2)
    assert one.summary["delta"]["kd"] == -5.5
    frame = forest.frame(one, one.labels)
    assert sorted(frame[(frame["panel"] == COLUMN) & (frame["dot"] != "")]["delta"]) == [
        -6.0,
        -5.0,
        -2.0,
        -1.0,
    ]
    page = ablation.markdown([one], "m", FOOTER)
    # on each pair seeds differ by 3, 2, 2: variance of a run 1/6 (df 2), of the mean of two pairs 1/12 (df 4)
    # half of the interval: 2.7764 / 12**0.5 = 0.80
    assert "| m without a | -1.50 [-2.30, -0.70] | 75.00 ± 1.41 (2) |" in page
    assert "| m | full |" in page


def test_no_ablation_without_the_full_method_or_a_component(tmp_path):
    rows = [
        *runs("kd", 70.0),
        *setting("m", 75.0, usual={"a": 2.0}, a=0.0),
        *setting("n", 75.0, usual={"a": 2.0}),
    ]
    store.append(tmp_path / "s.csv", rows)
    found = tables(store.read(tmp_path / "s.csv"))
    assert [ablation.boards(found, method, "kd") for method in ("m", "n", "kd")] == [[], [], []]
