"""The frames that figures draw, and their colours."""

import pandas as pd
import pytest

from kdbench.report.figures import curves, forest, style
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.scenarios import COLUMN, PAIRS, A, boards, grid, run, runs


def test_forest_frame_holds_seeds_and_their_mean(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=0.5), run("crd", None, status="diverged")]
    (one,) = boards(tmp_path, rows)
    frame = forest.frame(one)
    part = frame[(frame["panel"] == COLUMN) & (frame["label"] == "dkd")]
    mean, seeds = part[part["dot"] == ""], part[part["dot"] != ""]
    assert seeds["dot"].tolist() == ["0", "1", "2"]
    assert mean["delta"].item() == pytest.approx(seeds["delta"].mean())
    assert "kd" not in set(frame["label"])
    assert frame[frame["label"] == "crd"]["note"].tolist().count("diverged") == 1


def test_curves_are_means_over_seeds_and_the_last_value_of_an_epoch_counts(tmp_path):
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
