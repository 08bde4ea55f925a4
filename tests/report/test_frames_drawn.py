"""The frames that figures draw, and their colours."""

import numpy as np
import pandas as pd
import pytest

from kdbench.report.figures import curves, forest, style
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.figures import FOOTER, texts
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
    figure = forest.draw(frame, "kd", FOOTER)
    assert {text.strip() for text in texts(figure) if "✗ 1 of" in text} == {"✗ 1 of 3", "✗ 1 of 1"}
    assert any(forest.DIVERGED[:20] in text for text in texts(figure))
    sound = forest.draw(frame[frame["label"] == "dkd"], "kd", FOOTER)
    assert not any(forest.DIVERGED[:20] in text for text in texts(sound))


def test_a_forest_of_one_pair_is_as_wide_as_a_column(tmp_path):
    (one,) = boards(tmp_path / "one", grid([A], dkd=0.5))
    (two,) = boards(tmp_path / "two", grid([A, PAIRS[0]], dkd=0.5))
    widths = [forest.draw(forest.frame(each), "kd", FOOTER).get_figwidth() for each in (one, two)]
    assert widths == [3.5, style.WIDE]


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


def test_a_method_has_one_colour_and_25_have_25_kinds_of_line():
    six = ["ce", "kd", "dkd", "mlkd", "ctkd", "bickd"]
    assert len({style.colour(name) for name in six}) == 6
    assert style.colour("bickd tau_c=4") == style.colour("bickd")
    looks = style.lines(f"method{i}" for i in range(25)).values()
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 25
