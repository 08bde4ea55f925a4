"""The report on small scenarios, each written through the store as a run would write it."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from kdbench import store
from kdbench.errors import KdbenchError
from kdbench.report import curves, leaderboard, report, style
from kdbench.report.board import board
from kdbench.report.frames import tables
from kdbench.report.notes import BICKD, notes

COUNTER = itertools.count()
PAIRS = [("wrn_40_2", "wrn_16_2"), ("vgg13", "vgg8"), ("resnet32x4", "resnet8x4")]
A = ("resnet56", "resnet20")
NOISE = (0.0, 0.3, -0.2)


def run(method="kd", top1=70.0, pair=A, seed=0, **changes):
    """One row; the fields that no test is about are left empty, as a bare machine would leave them."""
    known = {
        "schema": 1, "cell_id": f"cell{next(COUNTER):08d}", "suite": "s", "dataset": "cifar100",
        "split": "test", "teacher": pair[0], "teacher_id": pair[0] and "abcd1234", "student": pair[1],
        "method": method, "method_version": 1, "params": "{}", "recipe_id": "r1", "seed": seed, "variant": "",
        "status": "ok", "top1": top1, "epochs_done": 240, "train_s": 240.0, "run_id": "run", "attempt": 1,
        "git_commit": "0123456789abcdef", "git_dirty": False, "torch": "2.9.0", "device": "gpu",
    }  # fmt: skip
    return dict.fromkeys(store.COLUMNS) | known | changes


def runs(method, *top1, pair=A, **changes):
    """One row a seed."""
    return [run(method, value, pair, seed, **changes) for seed, value in enumerate(top1)]


def grid(pairs, **gains):
    """For each pair and 3 seeds: kd at about 70, and each method that much better."""
    methods = {"kd": 0.0} | gains
    return [
        run(method, 70.0 + NOISE[seed] + gain + 0.01 * seed * len(method), pair, seed)
        for pair in pairs
        for method, gain in methods.items()
        for seed in range(3)
    ]


def boards(path, rows, baseline="kd"):
    store.append(path / "s.csv", rows)
    return [board(table, baseline) for table in tables(store.read(path / "s.csv"))]


def cells(b):
    """(label, column heading) -> text, as in markdown."""
    columns = leaderboard.columns(b, "**{}**".format)
    return {(m, c.heading): t for c in columns for m, t in zip(b.labels, c.cells, strict=True)}


def said(b):
    return "\n".join(notes(b))


COLUMN = "resnet56 -> resnet20"


def test_a_cell_is_mean_std_n_and_one_seed_shows_no_spread(tmp_path):
    (b,) = boards(tmp_path, [*runs("kd", 70.0, 71.0, 72.0), *runs("dkd", 74.0)])
    assert cells(b)["kd", COLUMN] == "71.00 ± 1.00 (3)"
    assert cells(b)["dkd", COLUMN] == "74.00 (1)"
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


def test_two_weights_under_one_teacher_name_never_share_a_column(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("kd", 50.0, 51.0, teacher_id="abcd9999")]
    (b,) = boards(tmp_path, rows)
    assert b.table.pairs == ["resnet56#abcd1 -> resnet20", "resnet56#abcd9 -> resnet20"]
    assert cells(b)["kd", b.table.pairs[0]].startswith("70.50")


def test_hash_is_four_digits_where_they_tell_apart(tmp_path):
    (b,) = boards(tmp_path, [run("kd"), run("kd", teacher_id="ffff0000")])
    assert b.table.pairs == ["resnet56#abcd -> resnet20", "resnet56#ffff -> resnet20"]


def test_a_method_without_a_teacher_joins_every_pair_of_its_student(tmp_path):
    other = ("resnet110", "resnet20")
    rows = [*grid([A, other]), *runs("ce", 68.0, 68.5, 68.1, pair=(None, "resnet20"))]
    (b,) = boards(tmp_path, rows)
    assert b.table.pairs == ["resnet110 -> resnet20", COLUMN]
    assert cells(b)["ce", "resnet110 -> resnet20"] == cells(b)["ce", COLUMN] == "68.20 ± 0.26 (3)"
    assert "joins every pair" in said(b)
    assert "9 rows used" in report("s", tmp_path, tmp_path / "out")  # 6 kd, 3 ce: none counted twice


def test_only_methods_without_a_teacher(tmp_path):
    (b,) = boards(tmp_path, runs("ce", 68.0, 68.5, pair=(None, "resnet20")))
    assert b.table.pairs == ["resnet20"]


def test_splits_and_recipes_stand_in_tables_of_their_own(tmp_path):
    short = [{**row, "recipe_id": "r2", "epochs_done": 12} for row in runs("kd", 50.0, 51.0)]
    rows = [*short, *runs("kd", 80.0, 81.0, split="holdout"), *runs("kd", 70.0, 71.0)]
    found = boards(tmp_path, rows)
    assert [b.table.heading for b in found] == [
        "cifar100, test split, 240 epochs (recipe r1)",
        "cifar100, test split, 12 epochs (recipe r2)",
        "cifar100, holdout split, 240 epochs (recipe r1)",
    ]
    assert [cells(b)["kd", COLUMN][:5] for b in found] == ["70.50", "50.50", "80.50"]
    assert "top-1 on the holdout split, last epoch" in said(found[2])


def test_overrides_are_rows_of_their_own_and_never_the_baseline(tmp_path):
    rows = [
        *runs("kd", 70.0, 71.0),
        *runs("kd", 90.0, 91.0, variant="temperature=1", params='{"temperature":1}'),
    ]
    (b,) = boards(tmp_path, rows)
    assert b.labels == ["kd temperature=1", "kd"]
    assert b.summary["delta"]["kd temperature=1"] == 20.0


def test_newer_versions_and_parameters_replace_older_ones_and_are_counted(tmp_path):
    rows = [
        *runs("dkd", 10.0, 10.0, method_version=1),
        *runs("dkd", 20.0, method_version=2, params='{"beta":8.0}'),
        *runs("dkd", 70.0, 71.0, method_version=2, params='{"beta":2.0}'),
    ]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", COLUMN].startswith("70.50")
    assert "Set aside: 3" in said(b)


def test_a_repeated_attempt_counts_once(tmp_path):
    failed = run("kd", None, status="interrupted")
    (b,) = boards(tmp_path, [failed, {**failed, "status": "ok", "top1": 70.0}])
    assert cells(b)["kd", COLUMN] == "70.00 (1)"
    assert "Without a result" not in said(b)


def test_without_the_baseline_deltas_are_dashes_and_the_reason_is_given(tmp_path):
    (b,) = boards(tmp_path, [*runs("dkd", 70.0, 71.0), *runs("ce", 60.0, 61.1)])
    assert cells(b)["dkd", "Δ vs kd [95%]"] == "–"
    assert cells(b)["dkd", "rank"] == "1.0"
    assert "kd has no finished run" in said(b)
    assert "kd has no finished run" in report("s", tmp_path, tmp_path / "out")


def test_another_baseline(tmp_path):
    (b,) = boards(tmp_path, grid([A], dkd=1.0), baseline="dkd")
    assert cells(b)["dkd", "Δ vs dkd [95%]"] == "baseline"
    assert b.summary["delta"]["kd"] == pytest.approx(-1.0, abs=0.05)


def test_only_failures_still_give_a_report(tmp_path):
    store.append(tmp_path / "s.csv", [run("kd", None, status="error", epochs_done=None, train_s=None)])
    text = report("s", tmp_path, tmp_path / "out")
    assert "1 error" in text


def test_a_weak_teacher_is_marked(tmp_path):
    (b,) = boards(tmp_path, runs("kd", 70.0, 71.0, teacher_top1=71.5, teacher_expected=72.34))
    assert ("kd", f"{COLUMN}†") in cells(b)
    assert "† teacher resnet56 reaches 71.50, the suite expects 72.34" in said(b)


def test_bickd_is_called_a_reconstruction_only_where_it_stands(tmp_path):
    (without,) = boards(tmp_path / "a", [run("kd")])
    (with_it,) = boards(tmp_path / "b", [run("bickd")])
    assert BICKD not in notes(without)
    assert BICKD in notes(with_it)


def test_cost_is_seconds_an_epoch_in_multiples_of_the_baseline(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("dkd", 70.0, 71.0, train_s=480.0)]
    other = [*runs("kd", 70.0, 71.0, pair=PAIRS[0]), *runs("dkd", 70.0, 71.0, pair=PAIRS[0], train_s=1920.0)]
    (b,) = boards(tmp_path, rows + other)
    assert cells(b)["dkd", "cost x kd"] == "4.00"  # the geometric mean of 2 and 8
    assert cells(b)["kd", "cost x kd"] == "1.00"


def wild(path):
    """Everything at once: many methods, pairs, long names, gaps, two tables, curves."""
    gains = {f"method{i:02d}": 0.1 * i for i in range(12)} | {"bickd": 0.5}
    rows = grid([A, *PAIRS, ("vit_base_patch16_224.augreg_in21k", "mobilenetv2_cifar")], **gains)
    rows += runs("dkd", 70.0, 71.0, variant="alpha=0.5 beta=2 temperature=4 warmup_epochs=20", params="{1}")
    rows += [
        run("crd", None, status="diverged"),
        run("fitnet", None, status="skipped", error="because " * 30),
    ]
    rows += runs("kd", 60.0, 61.0, split="holdout") + runs("dkd", 61.0, 62.5, split="holdout")
    store.append(path / "s.csv", rows)
    lines = [
        {"cell_id": row["cell_id"], "run_id": "run", "epoch": epoch, "term": term, "value": 1.0 * epoch}
        for row in rows
        for epoch in (1, 2)
        for term in ("top1", "loss", "ce")
    ]
    store.append(path / "s.curves.csv", lines, store.CURVE_COLUMNS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(folder of results, folder of the report, its text)"""
    path = tmp_path_factory.mktemp("wild")
    wild(path)
    return path, path / "out" / "s", report("s", str(path), str(path / "out"))


def test_files(written):
    names = sorted(p.name for p in written[1].iterdir())
    figures = [f"{figure}.{kind}" for figure in ("curves", "forest") for kind in ("csv", "png", "svg")]
    assert names == [*figures, "leaderboard.csv", "leaderboard.md"]


def test_text_fits_80_columns_and_is_free_of_control_characters(written):
    lines = written[2].splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "temperature=4" in written[2]  # a long name is folded, not cut


def test_same_rows_same_bytes(written):
    results, first, text = written
    assert report("s", results, results / "again") == text
    for path in first.iterdir():
        assert path.read_bytes() == (results / "again" / "s" / path.name).read_bytes(), path.name


def test_report_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    store.append(tmp_path / "s.csv", runs("kd", 70.0, 71.0))
    report("s", tmp_path, tmp_path / "out")
    assert dict(matplotlib.rcParams) == before


def test_every_artefact_names_suite_rows_commit_and_device(written):
    _, folder, text = written
    for content in [(folder / f"leaderboard.{kind}").read_text() for kind in ("md", "csv")] + [text]:
        flat = " ".join(content.split())
        assert "Suite s; recipe r1;" in flat
        assert "commit 0123456789;" in flat
        assert "device gpu; torch 2.9.0" in flat


def test_markdown_table_is_whole(written):
    lines = [line for line in (written[1] / "leaderboard.md").read_text().splitlines() if line[:1] == "|"]
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert len(columns) == 2  # two tables, each with one number of columns
    assert any("✗" in line for line in lines)


def test_csv_keeps_full_digits(written):
    frame = pd.read_csv(written[1] / "leaderboard.csv")
    line = frame[(frame["split"] == "test") & (frame["label"] == "bickd")].iloc[0]
    assert line[f"{COLUMN}: mean"] == pytest.approx(70.5 + 0.1 / 3 + 0.05, abs=1e-12)
    assert line["wins"] + line["ties"] + line["losses"] == line["pairs_common"]


def test_forest_frame_holds_seeds_and_their_mean(written):
    frame = pd.read_csv(written[1] / "forest.csv", keep_default_na=False, na_values=[""])
    part = frame[
        (frame["panel"] == COLUMN) & (frame["label"] == "method05") & frame["table"].str.contains("test")
    ]
    mean, seeds = part[part["dot"].isna()], part[part["dot"].notna()]
    assert seeds["dot"].astype(str).tolist() == ["0", "1", "2"]
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
    frame = curves.frame(tables(store.read(tmp_path / "s.csv")), lines)
    assert frame[["mean", "n"]].to_numpy().tolist() == [[30.0, 2.0]]
    assert frame["std"].item() == pytest.approx(200**0.5)


def test_a_method_has_one_colour_and_25_have_25_kinds_of_line():
    six = ["ce", "kd", "dkd", "mlkd", "ctkd", "bickd"]
    assert len({style.colour(name) for name in six}) == 6
    assert style.colour("bickd tau_c=4") == style.colour("bickd")
    looks = style.lines(f"method{i}" for i in range(25)).values()
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 25


def test_no_rows_tells_the_remedy(tmp_path):
    with pytest.raises(KdbenchError, match="kdbench run --suite digits"):
        report("digits", tmp_path, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    store.append(tmp_path / "s.csv", [run("kd")])
    (tmp_path / "file").write_text("")
    with pytest.raises(KdbenchError, match="cannot write"):
        report("s", tmp_path, tmp_path / "file")


def test_torch_is_not_imported():
    code = "import sys, kdbench.report, kdbench.stats; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_ten_thousand_rows_take_seconds(tmp_path):
    methods = {f"m{i}": 0.01 * i for i in range(40)}
    rows = [
        run(m, 70.0 + gain + (seed * 7 + len(t)) % 5, (t, "s"), seed)
        for t in [f"teacher{i}" for i in range(10)]
        for m, gain in ({"kd": 0.0} | methods).items()
        for seed in range(25)
    ]
    store.append(tmp_path / "s.csv", rows)
    start = time.process_time()
    (b,) = [board(table, "kd") for table in tables(store.read(tmp_path / "s.csv"))]
    leaderboard.text("s", [b], [])
    assert len(rows) > 10_000
    assert time.process_time() - start < 10
