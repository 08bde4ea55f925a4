"""Figures: heat map, cost, forest and curves: what is drawn, and that names can be read."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from kdbench.report import figures
from kdbench.report.figures import cost_accuracy, curves, forest, heatmap, label_placement, style
from kdbench.report.figures.sheet import PAPER, SCREEN, Canvas
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.figures import FOOTER, SHEET, keep, texts
from tests.support.scenarios import COLUMN, PAIRS, A, boards, grid, hex12, run, runs


def test_the_heat_map_tells_apart_what_is_not_there(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=1.0), *runs("late", 71.0, 72.0)]
    rows += [run("late", None, seed=2, status="diverged")]
    rows += [run("gone", None, seed=seed, status="diverged") for seed in (0, 1)]
    rows += [
        run("fitnet", None, status="skipped", error="stages differ"),
        run("other", 70.0, PAIRS[0], seed=9),
    ]
    (one,) = boards(tmp_path, rows)
    frame = heatmap.frame(one)
    notes = frame.set_index(["label", "column"])["note"]
    assert notes["kd", COLUMN] == "baseline"
    assert notes["late", COLUMN] == "diverged 1 of 3"
    assert notes["fitnet", COLUMN] == "n/a"
    assert notes["fitnet", "wrn_40_2 -> wrn_16_2"] == "–"
    assert notes["other", "wrn_40_2 -> wrn_16_2"] == "no seed shared"
    assert notes["late", "mean over 2 pairs"] == "diverged 1 of 3"
    assert notes["dkd", COLUMN] == ""
    shown = frame[(frame["label"] == "dkd") & (frame["column"] == COLUMN)].iloc[0]
    assert shown["delta"] == pytest.approx(1.01)  # the mean of 1, 1.01 and 1.02
    assert (shown["n"], shown["top1"]) == (3, pytest.approx(71.06333333))
    assert notes["gone", COLUMN] == notes["gone", "mean over 2 pairs"] == "diverged 2 of 2"
    late = frame[frame["label"] == "late"].set_index("column")["delta"]
    assert late[COLUMN] == late["mean over 2 pairs"] == pytest.approx(1.34)  # of 1.00 and 1.68
    drawn = texts(heatmap.draw(frame, SHEET, "kd"))
    assert {"+1.01", "71.06 (3)", "+1.34 ✗1", "✗ 2 of 2", "n/a", "–", "baseline"} <= drawn


def test_the_heat_map_is_in_the_order_of_the_leaderboard(tmp_path):
    (one,) = boards(tmp_path, grid([A, PAIRS[0]], low=-1.0, high=2.0, middle=1.0))
    assert heatmap.frame(one)["label"].drop_duplicates().tolist() == ["high", "middle", "kd", "low"]


def test_one_pair_has_no_heat_map_and_one_seed_no_forest(tmp_path):
    (one,) = boards(tmp_path / "a", grid([A], dkd=1.0))
    assert heatmap.frame(one).empty
    assert not forest.frame(one).empty
    (one,) = boards(tmp_path / "b", [*runs("kd", 70.0), *runs("dkd", 71.0)])
    assert forest.frame(one).empty


def test_the_front_is_what_nothing_beats_at_its_price():
    seconds = [1.0, 2.0, 2.0, 3.0, 0.5, 1.0]
    scores = [70.0, 72.0, 71.0, 72.0, 60.0, 70.0]  # 71 at 2 and 72 at 3 are beaten; equals share the front
    assert cost_accuracy.front(seconds, scores).tolist() == [True, True, False, False, True, True]


def test_cost_is_drawn_of_what_was_timed_and_compared(tmp_path):
    rows = [
        *runs("kd", 70.0, 71.0),
        *runs("dkd", 72.0, 73.5, train_s=480.0),
        *runs("untimed", 75.0, 75.0, train_s=None),
    ]
    rows += [*runs("broken", 70.0), run("broken", None, seed=1, status="diverged")]
    (one,) = boards(tmp_path, rows)
    frame = cost_accuracy.frame(one).set_index("label")
    assert set(frame["kind"]) == {"step"}  # these rows do not hold what teacher and data took
    assert frame["cost"].to_dict() == {"kd": 1.0, "broken": 1.0, "dkd": 2.0}
    assert frame["top1"].to_dict() == {"kd": 70.5, "broken": 70.0, "dkd": 72.75}
    assert frame["delta"]["dkd"] == 2.25
    assert frame["front"].to_dict() == {"kd": True, "broken": False, "dkd": True}
    assert frame.loc["broken", ["cost", "top1", "note"]].tolist() == [1.0, 70.0, "✗ 1 of 2"]
    assert "broken ✗ 1 of 2" in texts(cost_accuracy.draw(frame.reset_index(), SHEET, "kd"))
    (other,) = boards(tmp_path / "b", runs("dkd", 70.0))
    assert cost_accuracy.frame(other).empty
    gap = [
        row
        for row in grid([A, PAIRS[0]], dkd=1.0, dist=2.0)
        if (row["method"], row["teacher"]) != ("dist", A[0])
    ]
    (other,) = boards(tmp_path / "c", gap)
    frame = cost_accuracy.frame(other).set_index("label")
    assert frame["note"].to_dict() == {"kd": "", "dkd": "", "dist": "1 of 2 pairs"}
    level = frame.loc["kd", "top1"]
    assert frame.loc["dist", "delta"] == pytest.approx(2.02)  # on the one pair
    assert frame.loc["dist", "top1"] == pytest.approx(level + 2.02)
    assert frame["front"].to_dict() == {"kd": False, "dkd": True, "dist": False}
    figure = cost_accuracy.draw(frame.reset_index(), SHEET, "kd")
    assert "dist 1 of 2 pairs" in texts(figure)
    assert "k of n pairs" in figure.facts[1]


def test_a_mean_of_fewer_pairs_says_of_how_many(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=1.0), *runs("late", 71.0, 72.0)]
    (board,) = boards(tmp_path, rows)
    mean = "mean over 2 pairs"
    frame = heatmap.frame(board)
    notes = frame.set_index(["label", "column"])["note"]
    assert notes["late", mean] == "1 of 2 pairs"
    assert notes["dkd", mean] == notes["late", COLUMN] == ""
    figure = heatmap.draw(frame, SHEET, "kd")
    assert "+1.34 (1)" in texts(figure)  # of 1.00 and 1.68, on the one pair
    assert "(k) beside a mean" in figure.facts[1]
    frame = forest.frame(board)
    means = frame[(frame["dot"] == "") & (frame["panel"] == mean)].set_index("label")["note"]
    assert means.to_dict() == {"dkd": "", "late": "1 of 2 pairs"}
    figure = forest.draw(frame, SHEET, "kd")
    assert "1 of 2 pairs" in "".join(texts(figure))
    assert forest.PARTIAL in figure.facts[1]


@pytest.mark.parametrize("sheet", [SCREEN, PAPER])
def test_letters_of_a_crowded_figure_can_be_read(tmp_path, sheet):
    """At least 7 points; on the screen all methods, on paper as many as fit, which the figure says."""
    (board,) = boards(tmp_path, crowd(63))
    for module in (forest, heatmap):
        figure = module.draw(module.frame(board), sheet, "kd")
        drawn = [
            text for text in figure.findobj(Text)
            if text.get_text() and text.get_visible() and text.get_color() != style.GREY
        ]  # fmt: skip
        assert min(text.get_fontsize() for text in drawn) >= 7
        assert figure.get_figheight() <= sheet.tall
        shown = {f"method_{i:02d}" for i in range(62)} & texts(figure)
        assert (len(shown) == 62) == (sheet is SCREEN)
        assert ("methods are drawn" in figure.facts[1]) == (sheet is PAPER)


def test_figures_name_the_methods_that_they_leave_out(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("dkd", 72.0, 73.5), *runs("untimed", 75.0, 75.0, train_s=None)]
    keep(tmp_path / "d", rows[0], calibration=np.ones((15, 3)))
    lines = [
        {"cell_id": row["cell_id"], "run_id": hex12("run"), "epoch": 1, "term": "top1", "value": 1.0}
        for row in rows
        if row["method"] != "dkd"
    ]
    (board,) = boards(tmp_path, rows)
    drawn = figures.of_boards([board], pd.DataFrame(lines), [tmp_path / "d"], "kd", FOOTER)
    said = {one.name: one.aside for one in drawn if len(one.data)}
    assert said["forest"] == []
    assert said["cost"] == [
        "Not in this figure, without a cost that can be compared or a pair that kd shares: untimed."
    ]
    assert said["curves"] == ["Not in this figure, without recorded epochs: dkd."]
    assert said["calibration"] == ["Not in this figure, without saved predictions: dkd, untimed."]


def test_names_break_at_their_parts():
    assert style.title("resnet14_wide -> resnet14_narrow", 14).split("\n") == [
        "resnet14_wide", "→", "resnet14_", "narrow",
    ]  # fmt: skip
    assert style.title("vgg8 -> " + "x" * 20, 12).split("\n") == ["vgg8 →", "x" * 12, "x" * 8]


def boxes(found):
    return np.array([text.get_window_extent().extents for text in found])


def overlaps(rectangles, slack=0.5):
    low = np.maximum(rectangles[:, None, :2], rectangles[None, :, :2])
    high = np.minimum(rectangles[:, None, 2:], rectangles[None, :, 2:])
    shared = ((high - low) > slack).all(axis=2)
    np.fill_diagonal(shared, False)
    return int(shared.sum() // 2)


def crowd(count):
    """Methods on three pairs with names, gains and costs that crowd a figure."""
    rng = np.random.default_rng(0)
    rows = grid([A, *PAIRS[:2]], **{f"method_{i:02d}": float(rng.normal(0.5, 0.4)) for i in range(count - 1)})
    seconds = {row["method"]: float(240 * rng.uniform(1.0, 2.0)) for row in rows}
    return [{**row, "train_s": 240.0 if row["method"] == "kd" else seconds[row["method"]]} for row in rows]


@pytest.mark.parametrize("count", [25, 45])
def test_the_forests_labels_do_not_overlap(tmp_path, count):
    rows = [
        *crowd(count),
        *runs(
            "dkd",
            71.0,
            72.0,
            variant="alpha=0.5 beta=2 temperature=4 warmup_epochs=20",
            params='{"alpha":0.5}',
        ),
    ]
    (one,) = boards(tmp_path, rows)
    with SHEET.drawing():
        figure = forest.draw(forest.frame(one), SHEET, "kd")
        axes = figure.findobj(matplotlib.axes.Axes)
        named = boxes([text for text in axes[0].get_yticklabels() if text.get_text()])
    assert len(named) == count
    assert overlaps(named) == 0
    assert named[:, 0].min() >= 0


def test_the_costs_names_do_not_overlap(tmp_path):
    (one,) = boards(tmp_path, crowd(25))
    frame = cost_accuracy.frame(one)
    with SHEET.drawing():
        figure = cost_accuracy.draw(frame, SHEET, "kd")
        named = [text for text in figure.findobj(Text) if text.get_text() in set(frame["label"])]
        assert len(named) == 25
        assert overlaps(boxes(named)) == 0


def test_a_far_failure_does_not_shrink_the_others(tmp_path):
    rows = grid([A], **{f"m{i}": 0.1 * i for i in range(12)}, broken=-40.0)
    (one,) = boards(tmp_path, rows)
    figure = forest.draw(forest.frame(one), SHEET, "kd")
    (ax,) = figure.findobj(matplotlib.axes.Axes)
    assert ax.get_xlim()[0] > -5
    assert any("-40.0" in text for text in texts(figure))  # said where it is cut


def test_a_far_mean_of_fewer_pairs_says_both_in_one_place(tmp_path):
    rows = [*grid([A, PAIRS[0]], **{f"m{i}": 0.1 * i for i in range(12)}), *runs("broken", 30.0, 31.0)]
    (one,) = boards(tmp_path, rows)
    frame = forest.frame(one)
    mean = frame[frame["panel"] == "mean over 2 pairs"]
    figure = forest.draw(mean, SHEET, "kd")
    low = mean[(mean["label"] == "broken") & (mean["dot"] == "")]["delta"].item()
    assert [text.strip() for text in texts(figure) if "1 of 2 pairs" in text] == [f"{low:+.1f}, 1 of 2 pairs"]


def test_many_curves_name_the_baseline_and_the_best(tmp_path):
    gains = {f"m{i:02d}": float(i) for i in range(12)}
    rows = grid([A], **gains, bad=-9.0)
    store.append(tmp_path / "s.csv", rows)
    lines = pd.DataFrame(
        [
            {"cell_id": r["cell_id"], "epoch": e, "term": "top1", "value": r["top1"] * e / 2}
            for r in rows
            for e in (1, 2)
        ]
    )
    (table,) = tables(store.read(tmp_path / "s.csv"))
    frame = curves.frame(table, lines)
    assert curves.named(frame, "kd") == ["kd", *(f"m{i:02d}" for i in range(4, 12))]
    assert "5 others" in texts(curves.draw(frame, SHEET, "kd"))
    few = frame[frame["label"].isin(["m01", "bad", "kd"])]
    assert curves.named(few, "kd") == ["bad", "kd", "m01"]


def test_a_method_that_was_swept_is_once_among_all_methods():
    swept = [f"bickd tau={i}" for i in range(4)]
    assert style.main([*swept, "bickd", "kd", "dkd a=1", "dkd"]) == ["bickd", "dkd", "kd"]
    assert style.main([*swept, "kd"]) == [*swept, "kd"]  # never run as the suite sets it
    assert style.main([*swept, "bickd tau=9", "kd"]) == ["kd"]  # nor so, and too many others


def test_ink_reads_on_its_background():
    assert style.ink((1.0, 1.0, 1.0)) == style.ink((0.9, 0.9, 0.2)) == "black"
    assert style.ink((0.0, 0.0, 0.0)) == style.ink((0.0, 0.0, 0.6)) == "white"


def test_names_keep_clear_of_lines_and_points():
    _, (part,) = Canvas(SHEET, 4, "", []).draw([3.0])
    ax = style.grid(part, (1, 1), (0.5, 0.1, 0.1, 0.5), 0.0)[0, 0]
    ax.set(xlim=(0, 1), ylim=(0, 1))
    x, y = [0.5, 0.5, 0.52, 0.5], [0.5, 0.52, 0.5, 0.48]
    label_placement.place(ax, x, y, ["one", "two", "three", "four"], np.array([[0.5, 0.0, 0.5, 1.0]]))
    named = boxes(ax.texts)
    assert overlaps(named) == 0
    at = ax.transData.transform(np.column_stack([x, y]))
    inside = (named[:, None, :2] < at) & (at < named[:, None, 2:])
    assert not inside.all(axis=2).any()
    assert not ((named[:, 0] < at[0, 0] - 1) & (at[0, 0] + 1 < named[:, 2])).any()  # the vertical line
