"""The numbers of a leaderboard: means, paired differences, what is bold, and each status shown as what it is."""

import numpy as np
import pytest

from kdbench.report.columns import columns
from tests.scenarios import COLUMN, PAIRS, A, boards, cells, grid, run, runs, said


def test_a_cell_is_mean_std_n_and_one_seed_shows_no_spread(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0, 71.0, 72.0), *runs("dkd", 74.0)])
    assert cells(b)["kd", COLUMN] == "71.00 ± 1.00 (3)"
    assert cells(b)["dkd", COLUMN] == "74.00 (1)"
    assert "(1): one seed has no spread" in said(b)
    assert "✗" not in said(b)
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "+4.00"  # on the one shared seed: no interval
    assert cells(b)["dkd", "detects"] == "–"


def test_delta_is_paired_by_seed_and_its_interval_is_the_paired_t(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0, 75.0, 80.0), *runs("dkd", 71.0, 76.1, 80.9)])
    # differences 1.0 1.1 0.9: std 0.1, t(2, .975) = 4.3027, half = 4.3027 * 0.1 / sqrt(3)
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "+1.00 [+0.75, +1.25]"
    assert "the seeds of this one pair" in said(b)
    assert cells(b)["dkd", "p (Holm)"] == "too few pairs to test"


def test_bold_is_the_best_and_all_whose_paired_interval_to_it_contains_0(tmp_path):
    (b,) = boards(
        tmp_path,
        [
            *runs("kd", 70.0, 71.0, 72.0),
            *runs("dkd", 70.1, 71.1, 72.1),  # the best but one: always 0.1 better than kd
            *runs("wide", 72.6, 70.0, 71.9),  # best; its differences to both go either way
            *runs("ce", 60.0, 61.0, 62.0),
            *runs("lucky", 99.0),  # one seed proves nothing
        ],
    )
    assert set(b.cells.index[b.cells["bold"]].get_level_values("label")) == {"wide", "dkd", "kd"}


def test_a_constant_paired_advantage_separates_what_spread_hides(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 60.0, 70.0, 80.0), *runs("dkd", 60.5, 70.6, 80.5)])
    assert set(b.cells.index[b.cells["bold"]]) == {("dkd", COLUMN)}


def test_nothing_is_bold_where_nothing_can_be_compared(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0), *runs("dkd", 71.0)])
    assert not b.cells["bold"].any()


def test_missing_skipped_diverged_and_failed_are_shown_as_what_they_are(tmp_path):
    rows = [
        *grid([A, *PAIRS], dkd=1.0),
        run("fitnet", None, status="skipped", error="stages differ in number"),
        run("crd", None, status="diverged"),
        run("rkd", None, status="error", error="boom"),
        run("rkd", None, seed=1, status="oom"),
    ]
    (b,) = boards(tmp_path, rows)
    assert [cells(b)[m, COLUMN] for m in ("fitnet", "crd", "rkd")] == ["n/a", "✗", "–"]
    assert cells(b)["crd", "vgg13 -> vgg8"] == "–"
    assert [cells(b)[m, "coverage"] for m in ("dkd", "fitnet", "crd", "rkd")] == ["4/4", "0/4", "1/4", "0/4"]
    assert "fitnet on resnet56 -> resnet20: stages differ in number" in said(b)
    assert "crd on resnet56 -> resnet20 (1 of 1 seeds)" in said(b)
    assert "1 error, 1 oom" in said(b)


def test_one_diverged_seed_makes_the_cell_last_a_loss_and_without_delta(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=5.0, ce=-1.0), run("dkd", None, seed=3, status="diverged")]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", COLUMN].endswith("(3) ✗1")
    assert not b.cells["bold"]["dkd", COLUMN]
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "✗"
    assert cells(b)["dkd", "W-T-L"] == "1-0-1"
    assert b.summary["rank"]["dkd"] == 2.0  # 1st on one pair, 3rd and last on the other
    assert b.summary["rank"]["kd"] == 1.5


def test_summary_is_over_common_pairs_only(tmp_path):
    rows = [
        *grid([A, PAIRS[0], PAIRS[1]], dkd=1.0),
        *grid([PAIRS[2]], dkd=9.0),
        *runs("some", 71.0, 71.2, 70.9, pair=A),
        *runs("some", 71.0, 71.2, 70.9, pair=PAIRS[0]),
        *runs("few", 99.0, 99.5, 99.2, pair=A),
    ]
    (b,) = boards(tmp_path, rows)
    assert b.common == [COLUMN, "wrn_40_2 -> wrn_16_2"]  # those of `some`, which has half of the four
    assert b.summary["delta"]["dkd"] == pytest.approx(1.0, abs=0.05)  # not (1 + 1 + 1 + 9) / 4
    assert np.isnan(b.summary["delta"]["few"])
    assert np.isnan(b.summary["rank"]["few"])
    assert f"2 of 4 pairs ({COLUMN}, wrn_40_2 -> wrn_16_2)" in said(b)
    assert cells(b)["few", "coverage"] == "1/4"


def test_six_pairs_are_tested_and_holm_adjusted(tmp_path):
    pairs = [(f"t{i}", f"s{i}") for i in range(6)]
    (b,) = boards(tmp_path, grid(pairs, dkd=1.0, ce=-1.0))
    assert cells(b)["dkd", "p (Holm)"] == "0.062"  # 2 methods x 2 / 64
    assert cells(b)["dkd", "W-T-L"] == "6-0-0"
    assert "Intervals are over pairs" in said(b)


def test_without_the_baseline_deltas_are_dashes_and_the_reason_is_given(tmp_path):
    (b,) = boards(tmp_path, [*runs("dkd", 70.0, 71.0), *runs("ce", 60.0, 61.1)])
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "–"
    assert cells(b)["dkd", "rank"] == "1.0"
    assert "kd has no finished run" in said(b)


def test_another_baseline(tmp_path):
    (b,) = boards(tmp_path, grid([A], dkd=1.0), baseline="dkd")
    assert cells(b)["dkd", "Δ vs dkd [95%]"] == "baseline"
    assert b.summary["delta"]["kd"] == pytest.approx(-1.0, abs=0.05)


def test_cost_is_seconds_an_epoch_in_multiples_of_the_baseline(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("dkd", 70.0, 71.0, train_s=480.0)]
    other = [*runs("kd", 70.0, 71.0, pair=PAIRS[0]), *runs("dkd", 70.0, 71.0, pair=PAIRS[0], train_s=1920.0)]
    (b,) = boards(tmp_path, rows + other)
    assert cells(b)["dkd", "cost x kd"] == "4.00"  # the geometric mean of 2 and 8
    assert cells(b)["kd", "cost x kd"] == "1.00"


def test_unequal_numbers_of_seeds_are_told_and_delta_uses_the_shared_ones(tmp_path):
    rows = [*runs("kd", 70.0, 71.0, 90.0), *runs("dkd", 71.0, 72.5)]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", "Δ vs kd [95%]"].startswith("+1.25 [")  # not 71.75 - 77.00
    assert f"Unequal numbers of seeds: {COLUMN} (2 to 3)." in said(b)
    (equal,) = boards(tmp_path / "equal", [*runs("kd", 70.0, 71.0), *runs("dkd", 71.0, 72.5)])
    assert "Unequal" not in said(equal)


def test_only_the_best_n_can_detect_is_given_beside_the_interval(tmp_path):
    rows = [*runs("kd", 70.0, 75.0, 80.0), *runs("dkd", 71.0, 76.1, 80.9)]
    (b,) = boards(tmp_path, rows)
    # differences 1.0 1.1 0.9; t(2) needs an effect of 3.26 std for power .8 (G*Power: n = 3, dz = 3.26)
    assert b.summary["detectable"]["dkd"] == pytest.approx(0.326, abs=0.001)
    assert cells(b)["dkd", "detects"] == "0.33"


def test_what_a_text_is_sorted_by_puts_diverged_last_and_missing_nowhere(tmp_path):
    rows = [*grid([A], dkd=1.0), run("crd", None, status="diverged"), run("rkd", None, status="oom")]
    (b,) = boards(tmp_path, rows)
    (column,) = [c for c in columns(b) if c.pair]
    value = {label: text.value for label, text in zip(b.labels, column.cells, strict=True)}
    assert value["dkd"] == pytest.approx(71.06, abs=0.01)
    assert value["crd"] == -np.inf
    assert np.isnan(value["rkd"])
