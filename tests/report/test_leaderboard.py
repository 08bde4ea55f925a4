"""The numbers of a leaderboard: means, paired differences, what is bold, and each status shown as what it is."""

import numpy as np
import pytest

from kdbench.report.columns import columns
from tests.support.scenarios import COLUMN, PAIRS, A, boards, cells, grid, run, runs, said


def test_a_cell_is_mean_std_n_and_one_seed_shows_no_spread(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0, 71.0, 72.0), *runs("dkd", 74.0)])
    assert cells(b)["kd", COLUMN] == "71.00 ± 1.00 (3)"
    assert cells(b)["dkd", COLUMN] == "74.00 (1)"
    assert "(1): one seed has no spread" in said(b)
    assert "✗" not in said(b)
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "+4.00"  # on the one shared seed: no interval
    assert np.isnan(b.power.detectable)


def test_delta_is_paired_by_seed_with_the_paired_t_interval(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0, 75.0, 80.0), *runs("dkd", 71.0, 76.1, 80.9)])
    # differences 1.0 1.1 0.9: std 0.1, t(2, .975) = 4.3027, half = 4.3027 * 0.1 / sqrt(3)
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "+1.00 [+0.75, +1.25]§"
    assert b.alike is None  # one pair says nothing of other pairs


def test_bold_is_what_is_within_the_yardstick_of_the_best(tmp_path):
    rows = [
        *runs("kd", 70.0, 71.0, 72.0),
        *runs("dkd", 70.1, 71.1, 72.1),
        *runs("wide", 70.6, 71.2, 71.9),  # the best
        *runs("ce", 60.0, 61.0, 62.0),
        *runs("lucky", 99.0),  # one seed proves nothing
    ]
    (b,) = boards(tmp_path, rows)
    assert set(b.entries.index[b.entries["bold"]].get_level_values("label")) == {"wide", "dkd", "kd"}
    (found,) = b.best.values()
    assert f"Bold: within {found.yardstick:.2f} of the best." in said(b)
    means = b.entries["mean"].droplevel("pair")
    within = means.drop("lucky") >= means["wide"] - found.yardstick
    assert (within == b.entries["bold"].droplevel("pair").drop("lucky")).all()


def test_values_tried_on_the_test_split_are_never_bold(tmp_path):
    """The suite's own value was not chosen there; one other value alone is no sweep; the holdout split may choose."""
    rows = [
        *runs("kd", 70.0, 70.3, 70.1),
        *runs("ce", 71.0, 71.2, 71.1),
        *runs("ce", 80.0, 80.2, 80.1, variant="w=1"),
    ]
    swept = [*runs("kd", 78.0, 78.2, 78.1, variant="t=2"), *runs("kd", 79.0, 79.2, 79.1, variant="t=8")]

    def bold(*rows, split="test"):
        (b,) = boards(tmp_path / str(len(rows)) / split, [{**row, "split": split} for row in rows])
        return set(b.entries.index[b.entries["bold"]].get_level_values("label")), said(b)

    assert bold(*rows)[0] == {"ce w=1"}
    names, notes = bold(*rows[:6], *swept)
    assert names == {"ce"}
    assert "Tried on the test split, and never bold: kd t=2, kd t=8." in notes
    names, notes = bold(*rows[:6], *swept, split="holdout")
    assert names == {"kd t=8"}
    assert "Tried on the test split" not in notes


def test_a_collapsed_seed_is_marked_and_never_bold(tmp_path):
    sound = [*runs("kd", 70.0, 70.3, 70.1), *runs("dkd", 71.0, 71.2, 71.1)]
    (b,) = boards(tmp_path, [*sound, *runs("broken", 78.0, 78.2, 1.0)])
    assert cells(b)["broken", COLUMN].endswith(" ↓")
    assert set(b.entries.index[b.entries["bold"]]) == {("dkd", COLUMN)}
    (without,) = boards(tmp_path / "sound", sound)
    assert b.best[COLUMN].yardstick == pytest.approx(without.best[COLUMN].yardstick)
    assert "broken: 1 of 3 runs failed" in said(b)
    (b,) = boards(tmp_path / "base", [*runs("kd", 70.0, 1.0), *runs("dkd", 71.0, 71.2)])
    assert "dkd: runs of kd failed (diverged or collapsed). Δ without failed runs +1.00;" in said(b)


def test_differences_without_failed_runs_and_at_chance(tmp_path):
    sound = [*runs("kd", 70.0, 70.3, 70.1), *runs("dkd", 71.0, 71.2, 71.1)]
    (b,) = boards(tmp_path, [*sound, *runs("broken", 78.0, 78.2, 1.0)])
    assert b.failed.loc["broken", "without"] == pytest.approx(7.95)  # of the seeds that did not collapse
    assert b.failed.loc["broken", "robust"] == pytest.approx(7.9)  # medians: 78.0 - 70.1


def test_a_constant_paired_advantage_separates_what_spread_hides(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 60.0, 70.0, 80.0), *runs("dkd", 60.5, 70.6, 80.5)])
    assert set(b.entries.index[b.entries["bold"]]) == {("dkd", COLUMN)}


def test_nothing_is_bold_where_nothing_can_be_compared(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0), *runs("dkd", 71.0)])
    assert not b.entries["bold"].any()


def test_missing_skipped_diverged_and_failed_differ(tmp_path):
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


def test_a_diverged_seed_is_last_a_loss_and_shown_both_ways(tmp_path):
    rows = [*grid([A, PAIRS[0]], dkd=5.0, ce=-1.0), run("dkd", None, seed=3, status="diverged")]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", COLUMN].endswith("(3) ✗1")
    assert not b.entries["bold"]["dkd", COLUMN]
    assert cells(b)["dkd", "Δ vs kd [95%]"].startswith("+5.01 [")  # of the seeds that finished
    assert "dkd: 1 of 7 runs failed" in said(b)
    assert cells(b)["dkd", "W-T-L"] == "1-0-1"
    assert b.summary["rank"]["dkd"] == 2.0  # 1st on one pair, 3rd and last on the other
    assert b.summary["rank"]["kd"] == 1.5


def test_a_partly_diverged_pair_leaves_no_interval_for_pairs_like_these(tmp_path):
    """It would be of other pairs than the difference beside it."""
    rows = [*grid([A, *PAIRS], dkd=5.0, ce=-1.0), run("dkd", None, seed=3, status="diverged")]
    (b,) = boards(tmp_path, rows)
    assert b.summary.loc["dkd", ["alike_low", "alike_high", "alike_p"]].isna().all()
    assert b.summary.loc["ce", ["alike_low", "alike_high", "alike_p"]].notna().all()
    assert cells(b)["dkd", "pairs like these [95%]"] == "–"


def test_each_comparison_uses_the_pairs_that_it_shares(tmp_path):
    rows = [
        *grid([A, PAIRS[0], PAIRS[1]], dkd=1.0),
        *grid([PAIRS[2]], dkd=9.0),
        *runs("some", 71.0, 71.2, 70.9, pair=A),
        *runs("some", 71.0, 71.2, 70.9, pair=PAIRS[0]),
        *runs("few", 99.0, 99.5, 99.2, pair=A),
    ]
    (b,) = boards(tmp_path, rows)
    assert b.summary["delta"]["dkd"] == pytest.approx(
        3.01, abs=0.01
    )  # (1 + 1 + 1 + 9) / 4, whoever lacks pairs
    assert b.summary["delta"]["some"] == pytest.approx(71.0333 - 70.0533, abs=0.01)
    assert b.summary["delta"]["few"] == pytest.approx(29.18, abs=0.01)
    assert (b.summary["delta_n"][["dkd", "some", "few"]] == [4, 2, 1]).all()
    assert len(b.common) == 4  # kd and dkd on four pairs are more cells than three methods on two
    assert np.isnan(b.summary["rank"]["few"])
    assert "On fewer: few (1), some (2)" in said(b) or "On fewer: some (2), few (1)" in said(b)
    assert "4 of 4 pairs" in said(b)
    assert cells(b)["few", "coverage"] == "1/4"


def test_six_pairs_show_what_they_could_not_by_holm(tmp_path):
    pairs = [(f"t{i}", f"s{i}") for i in range(6)]
    rows = grid(pairs, dkd=0.0, ce=-1.0)
    for row in rows:
        if row["method"] == "dkd":
            row["top1"] += (0.4, 0.7, 0.5, 0.6, 0.3, 0.8)[int(row["student"][1])]
    (b,) = boards(tmp_path, rows)
    assert b.summary["alike_p"]["dkd"] < 0.01  # sign flips with Holm cannot be below 2 x 2 / 64
    assert 0 < b.summary["alike_low"]["dkd"] < b.summary["delta"]["dkd"] == pytest.approx(0.55, abs=0.03)
    assert cells(b)["dkd", "W-T-L"] == "6-0-0"
    both = b.summary.loc["dkd"]
    assert both["alike_high"] - both["alike_low"] > both["high"] - both["low"]  # pairs differ more than seeds


def test_pairs_that_share_a_teacher_are_one_unit(tmp_path):
    pairs = [("t0", "s0"), ("t0", "s1"), ("t1", "s2"), ("t2", "s3")]
    (b,) = boards(tmp_path, grid(pairs, dkd=1.0))
    assert b.alike.units == 3
    assert "the unit is the teacher (3 of them)" in said(b)


def test_an_added_method_takes_no_pairs_from_others(tmp_path):
    whole = grid([A, *PAIRS], dkd=1.0, ce=-1.0)
    (before,) = boards(tmp_path / "whole", whole)
    (after,) = boards(tmp_path / "added", [*whole, *runs("new", 75.0, 75.5, 75.2, pair=A)])
    kept = ["delta", "delta_n", "record"]
    assert (before.summary.loc[["dkd", "ce"], kept] == after.summary.loc[["dkd", "ce"], kept]).all(axis=None)


def test_without_the_baseline_deltas_are_dashes_with_a_reason(tmp_path):
    (b,) = boards(tmp_path, [*runs("dkd", 70.0, 71.0), *runs("ce", 60.0, 61.1)])
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "–"
    assert b.summary["rank"]["dkd"] == 1.0
    assert "kd has no finished run" in said(b)


def test_another_baseline(tmp_path):
    (b,) = boards(tmp_path, grid([A], dkd=1.0), baseline="dkd")
    assert cells(b)["dkd", "Δ vs dkd [95%]"] == "baseline"
    assert b.summary["delta"]["kd"] == pytest.approx(-1.0, abs=0.05)


def test_cost_is_seconds_an_epoch_in_multiples_of_the_baseline(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("dkd", 70.0, 71.0, train_s=480.0)]
    other = [*runs("kd", 70.0, 71.0, pair=PAIRS[0]), *runs("dkd", 70.0, 71.0, pair=PAIRS[0], train_s=1920.0)]
    (b,) = boards(tmp_path, rows + other)
    assert cells(b)["dkd", "step x kd"] == "4.00"  # the geometric mean of 2 and 8
    assert cells(b)["kd", "step x kd"] == "1.00"


def test_unequal_seeds_are_said_and_delta_uses_the_shared_ones(tmp_path):
    rows = [*runs("kd", 70.0, 71.0, 90.0), *runs("dkd", 71.0, 72.5)]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", "Δ vs kd [95%]"].startswith("+1.25 [")  # not 71.75 - 77.00
    assert f"Unequal numbers of seeds: {COLUMN} (2 to 3)." in said(b)
    (equal,) = boards(tmp_path / "equal", [*runs("kd", 70.0, 71.0), *runs("dkd", 71.0, 72.5)])
    assert "Unequal" not in said(equal)


def test_the_smallest_difference_that_is_shown_is_given_once(tmp_path):
    rows = [*runs("kd", 70.0, 75.0, 80.0), *runs("dkd", 71.0, 76.1, 80.9)]
    (b,) = boards(tmp_path, rows)
    # differences 1.0 1.1 0.9; t(2) needs an effect of 3.26 std for power .8 (G*Power: n = 3, dz = 3.26)
    assert b.power.detectable == pytest.approx(0.326, abs=0.001)
    assert "Detects: a true difference of 0.33 points" in said(b)
    assert "0.2 points: 5" in said(b)


def test_a_texts_value_puts_diverged_last_and_missing_nowhere(tmp_path):
    rows = [*grid([A], dkd=1.0), run("crd", None, status="diverged"), run("rkd", None, status="oom")]
    (b,) = boards(tmp_path, rows)
    (column,) = [c for c in columns(b) if c.pair]
    value = {label: text.value for label, text in zip(b.labels, column.entries, strict=True)}
    assert value["dkd"] == pytest.approx(71.06, abs=0.01)
    assert value["crd"] == -np.inf
    assert np.isnan(value["rkd"])


ONE_TEACHER = [("resnet56", student) for student in ("resnet20", "resnet14", "resnet8")]


def test_pairs_of_one_teacher_say_nothing_of_others(tmp_path):
    """Taken as independent, three such pairs show a false difference in 47 % of tables, six in 79 %."""
    (b,) = boards(tmp_path, grid(ONE_TEACHER, dkd=1.0, crd=0.5))
    assert b.alike is None
    assert "All pairs have the teacher resnet56, so they say nothing of pairs with other teachers." in said(b)
    assert b.summary.loc["dkd", "delta"] == pytest.approx(1.0, abs=0.5)  # on these pairs


def test_pairs_like_these_are_of_shared_seeds(tmp_path):
    """A method that has the easiest seed alone, on which it is hardly other than kd."""
    rows = grid(PAIRS[:3], dkd=1.0, crd=0.5, nkd=0.2)
    best = {}
    for row in rows:
        if row["method"] == "kd" and row["top1"] > best.get(row["student"], {"top1": 0})["top1"]:
            best[row["student"]] = row
    for row, luck in zip(best.values(), (0.3, -0.2, -0.1), strict=True):
        pair = row["teacher"], row["student"]
        rows += [run("lucky", row["top1"] + luck, pair=pair, seed=row["seed"])]
    (b,) = boards(tmp_path, rows)
    lucky = b.alike.cells.loc["lucky"]
    assert lucky["delta"] == pytest.approx(0.0)
    assert lucky["low"] < 0 < lucky["high"]


def test_what_a_table_can_show_is_by_the_seeds_that_are_shared(tmp_path):
    rows = [*runs("kd", *[70.0 + i % 3 for i in range(10)]), *runs("dkd", 71.0, 72.5, 73.0)]
    (b,) = boards(tmp_path, rows)
    assert (b.power.n, b.power.unit) == (3, "seeds")


def test_settings_tuned_on_the_holdout_split_are_no_choice_of_the_test_images(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("kd", 72.0, 73.0, variant="tuned (24 trials)", params='{"t":3}')]
    rows += runs("kd", 71.0, 71.5, variant="temperature=2", params='{"t":2}')
    (b,) = boards(tmp_path, rows)
    assert b.table.swept == []
    rows += runs("kd", 71.0, 71.5, variant="temperature=1", params='{"t":1}')
    (b,) = boards(tmp_path / "two", rows)
    assert b.table.swept == ["kd temperature=1", "kd temperature=2"]


def test_the_newest_code_is_the_latest_run_whatever_the_order_of_the_file(tmp_path):
    old = runs("kd", 70.0, 71.0, code_hash="a" * 12, started_utc="2026-01-01T00:00:00+00:00")
    new = [run("kd", 75.0, seed=2, code_hash="b" * 12, started_utc="2026-02-01T00:00:00+00:00")]
    for place, rows in (("as", [*old, *new]), ("reversed", [*new, *old])):
        (b,) = boards(tmp_path / place, rows)
        assert b.entries.loc["kd", "mean"].item() == 75.0
        assert b.table.codes == (f"kd (code {'a' * 4})",)
