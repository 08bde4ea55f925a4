"""Our runs and the published numbers: what is compared with what, and what is not comparable."""

import math

import pytest

from kdbench import suites
from kdbench.report import reproduction
from kdbench.report.render import paper_tables
from kdbench.report.render import reproduction as beside
from kdbench.report.reproduction import FOLLOWERS, literature
from tests.support.reproduction import B, curves, frame, line, read, run, runs


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
def test_another_recipe_shows_numbers_without_a_verdict(tmp_path, changes, why):
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


def test_rows_of_two_sets_of_images_are_never_mixed(tmp_path):
    """The table's data set is then named with its hash; the published numbers are found all the same."""
    data = frame(tmp_path, [*runs("kd", 70.6, 70.7), *runs("kd", 60.6, 60.7, split_id="0123456789ab")])
    kd = data[(data["label"] == "kd") & (data["metric"] == "top1")]
    assert sorted(zip(kd["verdict"], kd["comparable"], strict=True)) == [("", False), ("agrees", True)]
    assert set(data["dataset"]) == {"cifar100"}


def test_images_of_unknown_hash_have_no_verdict(tmp_path):
    """Any images of that name and number could be others: 50 of each class of Tiny-ImageNet, say."""
    own = literature("tiny-imagenet")
    here = {"suite": own.suite, "dataset": own.dataset, "recipe_id": own.recipe_id}
    data = frame(tmp_path, runs("kd", 58.0, 58.1, pair=("vgg19", "vgg8"), **here), own.suite)
    kd = line(data, "kd", "vgg19 -> vgg8")
    why = "kdbench does not know the hash of tiny-imagenet's true images"
    assert (bool(kd["printed"]), kd["why"], kd["verdict"]) == (True, why, "")
    assert f"1 not comparable, published values for orientation only: {why}." in reproduction.headline(data)


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
    beside.write(folder, "cifar100", reproduction.frame("cifar100", found, curves(rows)), [])
    text = (folder / "reproduction.md").read_text("utf-8")
    assert "- 71.19 [CTKD] rule probably best: the code keeps the best test accuracy" in text
    assert "| 71.19 [CTKD] | probably best |" in text


def test_what_is_not_comparable_is_folded_away(tmp_path):
    rows = [*runs("kd", 70.6, 70.7), *runs("dkd", 52.0, 52.1, recipe_id="short", epochs_done=4)]
    data = frame(tmp_path, rows)
    page = beside.markdown("cifar100", data, {}, [], [], [])
    before, folded = page.split("<details><summary>1 line not comparable, for orientation only</summary>")
    assert "70.65 ± 0.07 (2)" in before
    assert "52.05" not in before
    assert "| dkd | 52.05 ± 0.07 (2) |" in folded.split("</details>")[0]
    assert "best - last |" not in page  # no run was evaluated before its last epoch
    rows[0]["top1_best"] = 71.0
    seen = beside.markdown("cifar100", frame(tmp_path / "best", rows), {}, [], [], [])
    assert "| best - last |" in seen


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
