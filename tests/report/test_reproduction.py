"""Ours beside the published numbers: verdicts by hand, what is comparable, the papers' tables, the figure."""

import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from kdbench import suites
from kdbench.report import reproduction
from kdbench.report.figures import published, style
from kdbench.report.provenance import provenance
from kdbench.report.render import paper_tables
from kdbench.report.render import reproduction as beside
from kdbench.report.reproduction import FOLLOWERS, SPLITS, literature
from kdbench.report.tables import tables
from kdbench.report.verdicts import Ours, compare, judged, mean, rule_of, verdicts_of
from kdbench.results import store
from kdbench.results.published import Number
from kdbench.results.statistics.reproduced import Noise
from kdbench.utils.method_facts import shipped
from tests.support.scenarios import hex12, with_ids

COUNTER = itertools.count()
FOLLOWS = literature("cifar100")
A, B, CROSS = ("resnet56", "resnet20"), ("resnet110", "resnet20"), ("vgg13", "mobilenetv2")


def run(method, top1, pair=A, seed=0, **changes):
    """One finished run of suite cifar100 in full; its best evaluated epoch is 0.3 better than its last."""
    known = {
        "schema": store.SCHEMA, "cell_id": f"{next(COUNTER):012d}", "suite": "cifar100", "dataset": "cifar100",
        "split": "test", "split_id": SPLITS["cifar100"], "tested": 10_000,
        "teacher": pair[0], "teacher_id": pair[0] and "abcd1234", "student": pair[1],
        "method": method, "method_version": 1, "params": "{}", "recipe_id": FOLLOWS.recipe_id, "seed": seed,
        "variant": "", "status": "ok", "top1": top1, "top1_best": top1 and top1 + 0.3, "top5": top1 and 90.0,
        "epochs_done": 240, "train_s": 240.0, "run_id": "run", "attempt": 1, "git_commit": "0123456789abcdef",
        "git_dirty": False, "torch": "2.9.0", "device": "gpu", "started_utc": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    if pair[0]:
        known |= {"teacher_top1": 72.34, "teacher_expected": 72.34}
    return with_ids(dict.fromkeys(store.COLUMNS) | known | changes)


def runs(method, *top1, **changes):
    """One row a seed."""
    return [run(method, value, seed=seed, **changes) for seed, value in enumerate(top1)]


def read(path, rows, suite="cifar100"):
    """The rows through the store's file, as tables."""
    (path / f"{suite}.csv").unlink(missing_ok=True)
    store.append(path / f"{suite}.csv", rows)
    return tables(store.read(path / f"{suite}.csv"))


def curves(rows, every=1):
    """Top-1 of each ``every``-th epoch of each finished run, and of its last."""
    known = [
        {"cell_id": row["cell_id"], "run_id": hex12("run"), "epoch": epoch, "term": "top1", "value": 1.0}
        for row in rows
        if row["status"] == "ok"
        for epoch in range(1, row["epochs_done"] + 1)
        if epoch % every == 0 or epoch == row["epochs_done"]
    ]
    return pd.DataFrame(known, columns=store.CURVE_COLUMNS)


def frame(path, rows, suite="cifar100", every=1):
    return reproduction.frame(suite, read(path, rows, suite), curves(rows, every))


def ours(n, mean, std=0.0, best=None, best_std=0.0, whole=True):
    """Runs of exactly this mean and std (ddof 1): half of them below and half above."""
    return Ours(values(n, mean, std), () if best is None else values(n, best, best_std), whole)


def values(n, mean, std):
    signs = np.resize([-1.0, 1.0], n) if n > 1 else np.zeros(1)
    return tuple(mean + signs * std * np.sqrt((n - 1) / n))


def line(data, label, pair="resnet56 -> resnet20", metric="top1"):
    (found,) = data[(data["label"] == label) & (data["pair"] == pair) & (data["metric"] == metric)].to_dict(
        "records"
    )
    return found


def number(value, std=math.nan, count=math.nan, rule="last"):
    return Number(value, std, count, rule, ("X",))


NOISE = Noise(0.2, 12)  # of one run; t(12, .975) = 2.1788, one-sided .95: 1.7823


def judge(*cases, noise=NOISE):
    """Lines as `reproduction` makes them of (our runs, published numbers) -> what is decided."""
    lines = []
    for mine, numbers in cases:
        found = compare(mine, numbers)
        near = found.nearest
        line = {
            "n": mine.n,
            "mean": mean(mine.last),
            "fair_best": mean(mine.best) if mine.whole else math.nan,
        }
        line |= {"value": near.value, "value_std": near.std, "runs": near.runs}
        lines.append(line | {"judged_by": rule_of(near), "between": found.between})
    return verdicts_of(pd.DataFrame(lines), noise)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [  # se of 4 of our runs and 4 of theirs: 0.2 sqrt(1/4 + 1/4) = 0.14142; differs beyond 2.1788 se = 0.3081
        (70.0, "agrees"),  # and agrees below 0.5 - 1.7823 se = 0.2479
        (70.24, "agrees"),
        (70.26, "undecided"),
        (69.70, "undecided"),
        (70.32, "differs"),
        (69.68, "differs"),
    ],
)
def test_agrees_differs_or_undecided_by_hand(value, verdict):
    found = judge((ours(4, 70.0), [number(value, count=4)])).iloc[0]
    assert (found["verdict"], found["se"]) == (verdict, pytest.approx(0.2 * math.sqrt(0.5)))
    assert found["delta"] == pytest.approx(70.0 - value)


def test_their_error_is_theirs_where_it_is_printed():
    printed = judge((ours(4, 70.0), [number(70.4, 0.5, 4)])).iloc[0]
    assert printed["se"] == pytest.approx(math.sqrt(0.2**2 / 4 + 0.5**2 / 4))
    assert printed["verdict"] == "undecided"
    one = judge((ours(4, 70.0), [number(70.4)])).iloc[0]  # of one run, with our noise
    assert one["se"] == pytest.approx(0.2 * math.sqrt(1 / 4 + 1))


def test_a_best_epoch_is_compared_with_our_best_epoch():
    runs = ours(4, 76.0, 0.2, 76.3, 0.4)
    last = judge((runs, [number(76.32, count=4)])).iloc[0]
    best = judge((runs, [number(76.32, count=4, rule="best")])).iloc[0]
    assert (last["verdict"], last["ours"]) == ("differs", pytest.approx(76.0))
    assert (best["verdict"], best["ours"]) == ("agrees", pytest.approx(76.3))
    for without in (ours(4, 76.3, 0.2), ours(4, 76.0, 0.2, 76.3, 0.4, whole=False)):
        assert not judged(without, number(76.32, rule="best"))
    assert judged(runs, number(76.32, rule="best"))


@pytest.mark.parametrize(
    ("value", "verdict"),  # last 76.0, best 76.3; limits .2479 and .3081 as above
    [(75.6, "differs"), (75.95, "undecided"), (76.15, "agrees"), (76.4, "undecided"), (76.7, "differs")],
)
def test_an_unknown_rule_is_bracketed_by_both(value, verdict):
    runs = ours(4, 76.0, 0.2, 76.3, 0.2)
    unknown = number(value, count=4, rule="unknown")
    probable = number(value, count=4, rule="best")._replace(sure=False)
    assert rule_of(probable) == "unknown"
    assert [judge((runs, [each])).iloc[0]["verdict"] for each in (unknown, probable)] == [verdict] * 2


def test_a_number_that_cannot_be_judged_leaves_it_to_the_others():
    sparse = ours(4, 74.0, 0.1, 74.2, 0.1, whole=False)
    assert compare(sparse, [number(74.1, rule="best"), number(74.42)]).nearest.value == 74.42


@pytest.mark.parametrize(
    ("mine", "verdict", "delta"),
    [(74.0, "differs", -0.42), (74.35, "agrees", -0.07), (74.6, "agrees", -0.13), (75.1, "differs", 0.37)],
)
def test_a_range_contains_what_lies_between(mine, verdict, delta):
    found = judge((ours(4, mine), [number(74.42, count=4), number(74.73, count=4)])).iloc[0]
    assert (found["verdict"], round(found["delta"], 9)) == (verdict, delta)


def test_holm_counts_every_number_of_the_table():
    far = (ours(4, 70.0), [number(70.33, count=4)])
    assert judge(far).iloc[0]["verdict"] == "differs"
    others = [(ours(4, 70.0), [number(70.0, count=4)])] * 10
    assert judge(far, *others).iloc[0]["verdict"] == "undecided"


def test_one_run_is_judged_by_the_noise_of_the_table():
    found = judge((ours(1, 69.0), [number(70.66, count=5)])).iloc[0]
    assert (found["verdict"], found["delta"]) == ("differs", pytest.approx(-1.66))
    nothing = judge((ours(1, 69.0), [number(70.66)]), noise=Noise(math.nan, 0)).iloc[0]
    assert nothing["verdict"] == ""


@pytest.mark.parametrize("name", FOLLOWERS)
def test_a_suite_that_follows_the_literature_trains_in_full(name):
    found, suite = literature(name), suites.load(name)
    assert found.epochs == suite.recipe.epochs
    assert all(found.has(pair.teacher, pair.student) for pair in suite.pairs)
    assert (found.protocol == "twoview") == bool(suite.recipe.train_views)


def test_suites_that_do_not_follow_the_literature_are_none():
    assert literature("cifar100-quick") is None
    assert literature("digits") is None


def test_a_line_holds_ours_theirs_and_the_verdict(tmp_path):
    data = frame(tmp_path, [*runs("kd", 70.5, 70.7, 70.9), *runs("dkd", 71.0, 71.2)])
    kd, dkd = line(data, "kd"), line(data, "dkd")
    assert (kd["n"], kd["mean"], kd["std"]) == (3, pytest.approx(70.7), pytest.approx(0.2))
    assert kd["inflation"] == pytest.approx(0.3)
    assert (kd["printed"], kd["rule"], kd["runs"], kd["keys"]) == ("70.66", "last", 5, "CRD")
    assert (kd["delta"], kd["verdict"]) == (pytest.approx(0.04), "agrees")
    # best of ours 71.3, 71.5: mean 71.4; published 71.97 is a best epoch, a mean of 5 runs without a std. One run's
    # variance is (0.08 + 0.02) / 3, so se = sqrt(0.0333 (1/2 + 1/5)); p of t = 3.73 with 3 df is .034, by Holm .067
    assert (dkd["rule"], dkd["compared"]) == ("best", pytest.approx(71.4))
    assert dkd["se"] == pytest.approx(math.sqrt(0.1 / 3 * 0.7))
    assert dkd["p_holm"] == pytest.approx(0.067, abs=0.001)
    assert (dkd["delta"], dkd["verdict"]) == (pytest.approx(-0.57), "undecided")
    said = "Published numbers: 1 of 2 agree (shown to be within 0.5 points), 0 differ, 1 undecided."
    assert reproduction.headline(data) == [said]


def test_a_plain_student_counts_once_and_has_its_own_number(tmp_path):
    rows = [
        *runs("ce", 69.0, 69.1, pair=("", "resnet20")),
        *runs("kd", 70.6, 70.7),
        *runs("kd", 70.6, 70.7, pair=B),
    ]
    data = frame(tmp_path, rows)
    assert line(data, "ce")["printed"] == line(data, "ce", "resnet110 -> resnet20")["printed"] == "69.06"
    assert line(data, "ce")["verdict"] == "agrees"
    assert reproduction.headline(data)[0].startswith("Published numbers: 3 of 3")  # and kd on two pairs


def test_contradicting_sources_are_shown_as_a_range(tmp_path):
    data = frame(tmp_path, runs("dist", 74.5, 74.6, pair=("wrn_40_2", "wrn_40_1")))
    dist = line(data, "dist", "wrn_40_2 -> wrn_40_1")
    assert (dist["printed"], dist["low"], dist["high"]) == ("74.42–74.73", 74.42, 74.73)
    assert dist["values"] == "74.42 unknown [KD++]; 74.43 ± 0.24 unknown [DIST]; 74.73 unknown [TTM]"
    assert (dist["verdict"], dist["delta"]) == ("undecided", pytest.approx(74.55 - 74.43))


def test_other_protocols_are_neither_shown_nor_counted(tmp_path):
    """Of mlkd (480 epochs, two views) and kdpp (another lr) numbers are published, of resnet56 -> resnet20 too."""
    data = frame(
        tmp_path, [*runs("mlkd", 72.0, 72.1), *runs("kdpp", 72.4, 72.5), *runs("reviewkd", 71.8, 71.9)]
    )
    assert set(data[data["method"] != "teacher"]["printed"]) == {""}
    assert reproduction.headline(data) == ["Nothing is published, by this suite's protocol, of what was run."]


def test_the_two_view_suite_is_compared_with_mlkds_numbers_only(tmp_path):
    own = literature("cifar100-twoview")
    here = {"suite": own.suite, "recipe_id": own.recipe_id, "epochs_done": own.epochs}
    data = frame(tmp_path, [*runs("mlkd", 71.8, 71.9, **here), *runs("kd", 72.1, 72.2, **here)], own.suite)
    mlkd = line(data, "mlkd")
    assert (mlkd["printed"], mlkd["rule"], mlkd["verdict"]) == ("72.19", "best", "agrees")
    assert line(data, "kd")["printed"] == ""
    assert line(data, "teacher")["printed"] == "72.34"
    assert [layout.name for layout in paper_tables.layouts(data)] == ["paper_twoview"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"recipe_id": "short", "epochs_done": 4}, "4 epochs, the literature's recipe has 240"),
        ({"recipe_id": "bf16"}, "the recipe is not that of suite cifar100"),
    ],
)
def test_another_recipe_shows_the_published_numbers_without_a_verdict(tmp_path, changes, why):
    data = frame(tmp_path, runs("kd", 70.6, 70.7, **changes))
    kd = line(data, "kd")
    assert (kd["printed"], kd["verdict"], kd["comparable"], kd["why"]) == ("70.66", "", False, why)
    assert reproduction.headline(data) == [
        "No published number is tested here.",
        f"1 not comparable, published values for orientation only: {why}.",
    ]


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ("0123456789ab", "the images are not those of cifar100 (some of them, or others)"),
        ("", "the rows do not say on which images"),
    ],
)
def test_other_images_have_no_verdict(tmp_path, images, why):
    """Half of CIFAR-100, or fewer images of each class, under the same name and recipe."""
    kd = line(frame(tmp_path, runs("kd", 70.6, 70.7, split_id=images)), "kd")
    assert (kd["printed"], kd["verdict"], kd["why"]) == ("70.66", "", why)


def test_rows_of_two_sets_of_images_are_told_apart(tmp_path):
    """The table's data set is then named with its hash; the published numbers are found all the same."""
    data = frame(tmp_path, [*runs("kd", 70.6, 70.7), *runs("kd", 60.6, 60.7, split_id="0123456789ab")])
    kd = data[(data["label"] == "kd") & (data["metric"] == "top1")]
    assert sorted(zip(kd["verdict"], kd["comparable"], strict=True)) == [("", False), ("agrees", True)]
    assert set(data["dataset"]) == {"cifar100"}


@pytest.mark.parametrize(
    ("tested", "why"),
    [
        (10_000, ""),
        (400, "400 test images, tiny-imagenet has 10000"),
        (None, "the images are not verified: the rows do not say how many were tested"),
    ],
)
def test_images_of_unknown_hash_are_counted(tmp_path, tested, why):
    own = literature("tiny-imagenet")
    here = {"suite": own.suite, "dataset": own.dataset, "recipe_id": own.recipe_id, "tested": tested}
    pair = ("vgg19", "vgg8")
    data = frame(tmp_path, runs("kd", 58.0, 58.1, pair=pair, split_id="0123456789ab", **here), own.suite)
    kd = line(data, "kd", "vgg19 -> vgg8")
    assert (bool(kd["printed"]), kd["why"], bool(kd["verdict"])) == (True, why, not why)
    caution = "kdbench does not know the hash of tiny-imagenet's true images: only their number was checked."
    assert kd["caution"] == ("" if why else caution)
    assert (caution in reproduction.headline(data)) == (not why)


@pytest.mark.parametrize(("every", "verdict"), [(1, "undecided"), (10, "no best epoch: no verdict")])
def test_a_best_epoch_needs_every_late_one_evaluated(tmp_path, every, verdict):
    """Of 240 epochs the last 30, after the milestone at 210."""
    dkd = line(frame(tmp_path, runs("dkd", 71.0, 71.2), every=every), "dkd")
    assert (dkd["printed"], dkd["rule"], dkd["verdict"]) == ("71.97", "best", verdict)


def test_one_late_epoch_missing_is_not_every_one(tmp_path):
    rows = runs("dkd", 71.0, 71.2)
    found, seen = read(tmp_path, rows), curves(rows)
    (table,) = found
    cells = {row["cell_id"] for row in rows}
    assert reproduction.evaluated(table, seen, 210) == cells
    lost = (seen["cell_id"] == rows[0]["cell_id"]) & (seen["epoch"] == 211)
    assert reproduction.evaluated(table, seen[~lost], 210) == {rows[1]["cell_id"]}
    early = (seen["epoch"] <= 210) & (seen["epoch"] % 7 > 0)
    assert reproduction.evaluated(table, seen[~early], 210) == cells
    assert reproduction.evaluated(table, seen[:0], 210) == set()


def test_a_remark_on_a_published_number_is_printed(tmp_path):
    rows = runs("ctkd", 71.1, 71.2)
    found = read(tmp_path, rows)
    folder = tmp_path / "out"
    folder.mkdir()
    with rc_context(style.RC):
        beside.write(folder, "cifar100", found, [], curves(rows))
    text = (folder / "reproduction.md").read_text("utf-8")
    assert "- 71.19 [CTKD] rule probably best: the code keeps the best test accuracy" in text
    assert "| 71.19 [CTKD] | probably best |" in text


def test_a_suite_of_ones_own_is_not_the_literatures(tmp_path):
    data = frame(tmp_path, runs("kd", 70.6, 70.7, suite="mine"), "mine")
    assert line(data, "kd")["why"] == "240 epochs of suite mine, which is not the literature's recipe"
    assert line(data, "kd")["verdict"] == ""


def test_a_pair_without_a_recipe_is_not_comparable(tmp_path):
    """MobileNetV2 is published at a fifth of the suite's learning rate."""
    data = frame(tmp_path, runs("kd", 68.3, 68.4, pair=("wrn_40_2", "mobilenetv2")))
    kd = line(data, "kd", "wrn_40_2 -> mobilenetv2")
    assert (kd["printed"], kd["verdict"]) == ("68.36", "")
    assert kd["why"] == "the suite has no recipe for this pair"


def test_the_holdout_split_is_left_out(tmp_path):
    assert frame(tmp_path, runs("kd", 70.6, 70.7, split="holdout")).empty


def test_only_published_variants_stand_beside_the_defaults(tmp_path):
    rows = [*runs("crd", 71.6, 71.7, variant="kd_weight=1"), *runs("crd", 71.6, 71.7, variant="crd_weight=2")]
    data = frame(tmp_path, [*rows, *runs("crd", 71.1, 71.2)])
    assert list(data[data["metric"] == "top1"]["label"]) == ["teacher", "crd", "crd kd_weight=1"]
    assert [line(data, label)["printed"] for label in ("crd", "crd kd_weight=1")] == ["71.16", "71.63"]


def test_a_weak_teacher_is_noted_and_a_nearly_right_one_is_not(tmp_path):
    weak = {"teacher_top1": 72.28, "teacher_id": "bad000000000"}
    near = {"teacher_top1": 72.30, "teacher_id": "feed00000000"}
    data = frame(tmp_path, [*runs("kd", 70.6, 70.7, **weak), *runs("kd", 70.6, 70.7, **near)])
    assert (
        line(data, "kd", "resnet56#bad0 -> resnet20")["note"]
        == "teacher resnet56 reaches 72.28, expected 72.34"
    )
    assert line(data, "kd", "resnet56#feed -> resnet20")["note"] == ""
    assert line(data, "teacher", "resnet56#bad0 -> resnet20")["mean"] == 72.28
    assert reproduction.headline(data) == [
        "Published numbers: 2 of 2 agree (shown to be within 0.5 points), 0 differ, 0 undecided.",
        "1 of the 2 with a teacher below the expected accuracy.",
    ]
    (layout,) = paper_tables.layouts(data)
    assert "-0.01 agrees †" in paper_tables.markdown("cifar100", layout, [], [])


def test_diverged_runs_stay_out_of_the_headline(tmp_path):
    lost = run("at", None, seed=2, status="diverged", top1_best=None, top5=None)
    data = frame(tmp_path, [*runs("kd", 70.6), *runs("at", 70.5, 70.6), lost])
    assert line(data, "kd")["verdict"] == "undecided"  # by the noise of the others
    assert line(data, "at")["verdict"] == "1 diverged: no verdict"
    assert reproduction.headline(data) == [
        "Published numbers: 0 of 1 agree (shown to be within 0.5 points), 0 differ, 1 undecided.",
        "1 more comparable, but 1 diverged: no verdict.",
    ]


def test_an_unpaired_student_has_no_teacher_row(tmp_path):
    data = frame(tmp_path, runs("ce", 69.0, 69.1, pair=("", "resnet20")))
    assert list(data[data["metric"] == "top1"]["label"]) == ["ce"]
    assert line(data, "ce", "resnet20")["verdict"] == "agrees"
    assert paper_tables.layouts(data) == []


def everything():
    """Pairs of one and of two families; one method missing on one pair, one skipped, two views, a plug-in."""
    skipped = run("fsp", None, status="skipped", error="channels differ", top1_best=None, top5=None)
    return [
        *runs("ce", 69.0, 69.1, pair=("", "resnet20")),
        *runs("kd", 70.6, 70.7),
        *runs("kd", 70.6, 70.7, pair=B),
        *runs("kd", 67.3, 67.4, pair=CROSS),
        *runs("rkd", 69.6, 69.7),
        *runs("mlkd", 72.0, 72.1),
        *runs("my_own", 71.0, 71.1),
        skipped,
    ]


def grid(layout):
    """(name of the row, pair) -> the lines of the cell, from markdown."""
    lines = paper_tables.markdown("cifar100", layout, [], []).splitlines()
    rows = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines if text.startswith("| ")]
    return {(row[0], pair): cell for row in rows[1:] for pair, cell in zip(rows[0][1:], row[1:], strict=True)}


def test_the_papers_tables(tmp_path):
    same, cross, two = paper_tables.layouts(frame(tmp_path, everything()))
    cells = grid(same)
    assert [row for row, _ in cells][::2] == (
        ["teacher", "student (ce)", "logit", "kd", "feature", "fsp", "relation", "rkd", "other", "my_own"]
    )
    a, b = "resnet56 → resnet20", "resnet110 → resnet20"
    assert cells["teacher", a] == "72.34<br>72.34 [CRD]"
    assert cells["student (ce)", a] == "69.05 ± 0.07 (2)<br>69.06 last [CRD]<br>-0.01 agrees"
    assert cells["kd", b] == "70.65 ± 0.07 (2)<br>70.66–70.67 last [CTKD CRD]<br>-0.01 agrees"
    assert cells["rkd", b] == "–<br>69.25 last [CRD]"  # missing
    assert cells["fsp", a] == "n/a<br>69.95 last [CRD]"
    assert cells["my_own", a] == "71.05 ± 0.07 (2)"
    assert {row for row, _ in grid(cross)} == {"teacher", "student (ce)", "logit", "kd"}
    assert grid(two)["mlkd", a] == "72.05 ± 0.07 (2)"


def test_families():
    assert paper_tables.family("resnet32x4") == paper_tables.family("timm/resnet34")
    assert (
        len(
            {
                paper_tables.family(name)
                for name in ("wrn_40_2", "resnet8x4", "vgg8", "mobilenetv2", "shufflenetv2")
            }
        )
        == 5
    )


def test_rows_are_by_family_then_by_year(tmp_path):
    """A plug-in comes last; of one year, by name."""
    methods = ("my_own", "tfkd", "rkd", "fitnet", "dkd", "kd", "wsld", "at")
    rows = [row for name in methods for row in runs(name, 70.0, 70.1)]
    (same, *_) = paper_tables.layouts(frame(tmp_path, [*runs("ce", 69.0, pair=("", "resnet20")), *rows]))
    (column,) = {pair for _, pair in grid(same)}
    named = [row for row, pair in grid(same) if pair == column]
    logit, feature = ["logit", "kd", "wsld", "dkd"], ["feature", "fitnet", "at"]
    others = ["relation", "rkd", "self", "tfkd", "other", "my_own"]
    assert named == ["teacher", "student (ce)", *logit, *feature, *others]


def test_imagenet_has_top1_and_top5(tmp_path):
    own = literature("imagenet")
    here = {"suite": "imagenet", "dataset": "imagenet", "recipe_id": own.recipe_id, "epochs_done": own.epochs}
    here |= {"split_id": "their own", "tested": 50_000}
    rows = runs("crd", 71.1, 71.2, pair=("resnet34", "resnet18"), **here)
    (layout,) = paper_tables.layouts(frame(tmp_path, rows, "imagenet"))
    assert layout.name == "paper_imagenet"
    crd = {pair: text for (row, pair), text in grid(layout).items() if row == "crd"}
    assert crd == {
        "resnet34 → resnet18": "71.15 ± 0.07 (2)<br>71.17 unknown [CRD]<br>-0.02 undecided",
        "resnet34 → resnet18, top5": "90.00 ± 0.00 (2)<br>90.13 unknown [CRD]<br>-0.13 undecided",
    }


def test_latex_is_a_booktabs_table_with_every_cell(tmp_path):
    layout = paper_tables.layouts(frame(tmp_path, everything()))[0]
    text = paper_tables.tex("cifar100", layout, ["50% & more"], ["foot_note"])
    body = [row for row in text.splitlines() if row.endswith(r" \\")]
    assert text.count(r"\toprule") == text.count(r"\bottomrule") >= 1
    assert any(row.startswith("kd & 70.65 $\\pm$ 0.07 (2)") for row in body)
    assert any("70.66 last {[}CRD{]}" in row for row in body)
    assert r"50\% \& more" in text
    assert r"foot\_note" in text
    assert not set("±–Δ†→") & set(text)


def test_points_are_by_the_published_rule_and_hollow_where_not_comparable(tmp_path):
    short = {"recipe_id": "short", "epochs_done": 4}
    rows = [
        *runs("kd", 70.6, 70.7),
        *runs("dkd", 71.9, 72.0),
        *runs("kd", 56.0, **short),
        *runs("mlkd", 72.0),
    ]
    points = published.frame(frame(tmp_path, rows)).set_index(["comparable", "label"])
    assert sorted(points.index) == [(False, "kd"), (True, "dkd"), (True, "kd")]
    dkd = points.loc[True, "dkd"]
    assert (dkd["published"], dkd["ours"]) == (71.97, pytest.approx(72.25))  # best epochs
    assert math.isnan(points.loc[(False, "kd"), "se"])
    found = published.frame(frame(tmp_path, rows))
    first, last = (
        found[found["table"] == name] for name in (found["table"].iloc[0], found["table"].iloc[-1])
    )
    assert [_hollow(published.draw(part, ["foot"])) for part in (first, last)] == [False, True]
    figure = published.draw(found, ["foot"])  # one table, and the other is not left out silently
    assert len(figure.subfigs[0].axes) == 1
    assert any("The first 1 of 2 panels" in text.get_text() for text in figure.findobj(Text))


def _hollow(figure):
    (points,) = [c for c in figure.subfigs[0].axes[0].collections if isinstance(c, PathCollection)]
    return tuple(points.get_facecolors()[0][:3]) == (1, 1, 1)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_labels_never_overlap(count):
    wanted = np.sort(np.random.default_rng(count).choice([70.0, 70.01, 71.0, 74.0], count))
    places = published.apart(wanted, 0.1, 69.0, 75.0)
    assert (np.diff(places) >= 0.1 - 1e-9).all()
    assert places.min() >= 69.0
    assert places.max() <= 75.0 + 1e-9
    assert published.apart(np.array([70.0, 72.0]), 0.1, 69.0, 75.0).tolist() == [70.0, 72.0]


NAMES = ["paper_cross", "paper_same", "paper_twoview"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    found = read(tmp_path, everything())
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        with rc_context(style.RC):
            beside.write(folder, "cifar100", found, provenance("cifar100", found))
    ours = [f"{name}.{kind}" for name in NAMES for kind in ("csv", "md", "tex")]
    ours += ["published.csv", "published.png", "reproduction.csv", "reproduction.md"]
    assert sorted(path.name for path in folders[0].iterdir()) == sorted(ours)
    for name in ours:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    whole = pd.read_csv(folders[0] / "reproduction.csv")
    assert whole["provenance"].str.startswith("Suite cifar100; recipe").all()
    text = (folders[0] / "reproduction.md").read_text("utf-8")
    assert (
        "| resnet56 → resnet20 | kd | 70.65 ± 0.07 (2) | +0.30 | 70.66 [CRD] | last | 5 | -0.01 | agrees |"
        in text
    )
    assert (
        "kd on resnet56 → resnet20: 71.4 unknown, 1 run [RepDistiller#62], 71.54 unknown, 1 run [CTKD#23]"
        in text
    )
    assert "[CRD] arXiv:1910.10699 / README github.com/HobbitLong/RepDistiller" in text


def test_where_nothing_is_published_there_is_no_table_or_figure_and_it_is_said(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "paper_same.md").write_text("of rows that have gone", "utf-8")
    found = read(tmp_path, runs("kd", 90.0, 91.0, suite="digits", dataset="digits"), "digits")
    said = beside.write(folder, "digits", found, [])
    assert sorted(path.name for path in folder.iterdir()) == ["reproduction.csv", "reproduction.md"]
    text = (folder / "reproduction.md").read_text("utf-8")
    assert "Nothing is published, by this suite's protocol, of what was run." in text
    assert "No figure: there is no pair of a published number and ours to draw." in text
    assert "Nothing is published" in said


def test_report_print_stands_in_80_columns_and_needs_no_torch(tmp_path):
    long = "alpha=18 beta=36 standardize=true temperature=3"
    weak = {"teacher_top1": 60.0, "teacher_id": "bad000000000"}
    rows = [*runs("kd", 70.6, 70.7), *runs("dkd", 72.1, 70.2, variant=long), *runs("at", 70.1, 70.2, **weak)]
    store.append(tmp_path / "cifar100.csv", rows)
    store.append(tmp_path / "cifar100.curves.csv", curves(rows).to_dict("records"), store.CURVE_COLUMNS)
    options = ["report", "--results", str(tmp_path), "--out", str(tmp_path / "out"), "--print"]
    code = (
        f"import sys; from kdbench.cli.main import main; main({options!r}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = done.stdout[done.stdout.index("cifar100: published numbers beside ours") :]
    assert max(map(len, text.splitlines())) <= 80
    assert "  kd                    70.65 ± 0.07 (2)        70.66   -0.01  undecided" in text.splitlines()
    assert "    temperature=3       71.15 ± 1.34 (2)        72.32   -0.87  undecided" in text.splitlines()
    assert "  at                    70.15 ± 0.07 (2)        70.55   -0.40  undecided †" in text.splitlines()
    assert (tmp_path / "out" / "cifar100" / "paper_same.tex").is_file()


def test_ten_thousand_rows_take_seconds(tmp_path):
    pairs = sorted(FOLLOWS.pairs)
    methods = sorted(set(shipped()) - {"ce"})
    rows = [
        run(method, 70.0 + 0.01 * (i % 97), pairs[i % len(pairs)], seed, recipe_id=FOLLOWS.recipe_id)
        for i, (method, seed) in enumerate(itertools.product(methods, range(234)))
    ]
    found = read(tmp_path, rows)
    start = time.process_time()
    data = reproduction.frame("cifar100", found)
    for layout in paper_tables.layouts(data):
        paper_tables.markdown("cifar100", layout, [], [])
    beside.text("cifar100", data)
    assert len(rows) > 10_000
    assert time.process_time() - start < 8
