"""Leaderboards of other metrics than top-1: the same rules, the sign and the digits of the metric."""

import numpy as np
import pytest

from kdbench.report.columns import columns, cost_pairs
from kdbench.report.leaderboard import board
from kdbench.report.metrics import METRICS, TOP1, measured
from kdbench.report.notes import notes
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.scenarios import COLUMN, PAIRS, A, grid, runs, timed_grid

BY_NAME = {metric.column: metric for metric in METRICS}


def table_of(path, rows):
    store.append(path / "s.csv", rows)
    (table,) = tables(store.read(path / "s.csv"))
    return table


@pytest.fixture
def mirrored(tmp_path):
    """Two pairs, four methods; NLL is an exact falling function of top-1."""
    rows = grid([A, PAIRS[0]], dkd=0.9, crd=-0.4, at=0.05)
    return table_of(tmp_path, [row | {"nll": 5.0 - row["top1"] / 32} for row in rows])


def test_a_metric_of_which_less_is_better_mirrors_all_rules(mirrored):
    up, down = board(mirrored, "kd"), board(mirrored, "kd", BY_NAME["nll"])
    assert list(down.labels) == list(up.labels) == ["dkd", "at", "kd", "crd"]
    assert (down.entries["bold"] == up.entries["bold"]).all()
    assert up.entries["bold"].nunique() == 2
    assert (down.summary["record"].dropna() == up.summary["record"].dropna()).all()
    for frame, other in ((down.entries, up.entries), (down.summary, up.summary)):
        np.testing.assert_allclose(frame["delta"], -other["delta"] / 32, atol=1e-12)
        np.testing.assert_allclose(frame["low"], -other["high"] / 32, atol=1e-12)
        np.testing.assert_allclose(frame["high"], -other["low"] / 32, atol=1e-12)
        np.testing.assert_allclose(frame["p_family"], other["p_family"], atol=1e-9)
    np.testing.assert_allclose(down.entries["mean"], 5 - up.entries["mean"] / 32)
    np.testing.assert_allclose(down.summary["alike_low"], -up.summary["alike_high"] / 32, atol=1e-12)


def test_it_is_written_with_the_digits_and_unit_of_the_metric(mirrored):
    down = board(mirrored, "kd", BY_NAME["nll"])
    by_heading = {column.heading: column for column in columns(down)}
    assert by_heading[COLUMN].entries[0].text == "2.782 ± 0.008 (3)"
    assert by_heading["mean of 2"].entries[0].text == "2.782"
    assert by_heading["Δ vs kd [95%]"].entries[0].text.startswith("-0.028 [-0.0")
    assert by_heading[COLUMN].lower
    assert not {c.heading: c for c in columns(board(mirrored, "kd"))}[COLUMN].lower
    said = "\n".join(notes(down))
    assert "Negative log-likelihood in nats (lower is better) on the test split, last epoch." in said
    assert "nats is found with probability .8" in said
    assert "points" not in said


def test_a_run_that_collapsed_is_bold_in_no_metric(tmp_path):
    rows = [row | {"ece": 4.0 + row["seed"] / 10} for row in grid([A], dkd=0.5, at=0.0)]
    low = [row | {"ece": 0.1} for row in runs("crd", 70.0, 12.0, 70.1)]
    shown = board(table_of(tmp_path, rows + low), "kd", BY_NAME["ece"])
    entry = shown.entries.loc["crd", COLUMN]
    assert entry["mean"] == pytest.approx(0.1)
    assert (entry["bold"], entry["state"], entry["error"]) == (False, "collapsed", "own")


def test_only_metrics_that_a_run_has_are_offered(tmp_path):
    rows = runs("kd", 70.0, 71.0) + [row | {"ece": 3.0} for row in runs("dkd", 70.0, 71.0)]
    table = table_of(tmp_path, rows)
    assert measured(table) == [TOP1, BY_NAME["ece"]]
    shown = board(table, "kd", BY_NAME["ece"])
    assert not shown.has_baseline
    assert {c.heading: c for c in columns(shown)}[COLUMN].entries[shown.labels.index("kd")].text == "–"


def test_costs_per_pair_have_the_mean_of_the_table_as_their_mean(tmp_path):
    shown = board(table_of(tmp_path, timed_grid()), "kd")
    per_pair = {
        column.pair: column.entries[shown.labels.index("dkd")] for column in cost_pairs(shown, "step_cost")
    }
    assert {pair: text.text for pair, text in per_pair.items()} == {
        COLUMN: "1.25",
        "wrn_40_2 -> wrn_16_2": "2.00",
    }
    assert shown.summary["step_cost"]["dkd"] == pytest.approx(np.sqrt(1.25 * 2))


def test_a_mean_over_pairs_needs_every_pair_of_the_block(tmp_path):
    rows = grid([A, PAIRS[0]], dkd=0.5) + runs("at", 70.0, 71.0)
    shown = board(table_of(tmp_path, rows), "kd")
    means = shown.entries["mean"].unstack("label")
    assert shown.summary["mean"]["dkd"] == pytest.approx(means["dkd"].mean())
    assert np.isnan(shown.summary["mean"]["at"])


def test_metrics_are_columns_of_results_files():
    assert {metric.column for metric in METRICS} <= set(store.COLUMNS)
