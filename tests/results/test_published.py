"""The published numbers: the file, its names, and how a number is found."""

import math
import subprocess
import sys

import pytest

from kdbench import models, registry, suites
from kdbench.errors import KdbenchError
from kdbench.results import published
from kdbench.results.published import Name, Number

ROWS = published.load()
CRD = published.book(ROWS)
NOT_OURS = set(  # names of methods, as printed, that kdbench does not have
    """afd angular-kd angular-kd(crd) angular-kd(kd) angular-kd(kd+crd) bss byot cktf cktf+kd clkd dafl deit dfad
    dist+ dist++ distpro dkd++ dkd+angular-kd dkd+ctkd dkd+tekap fcfd feature-kd hkd hsakd hsakd* irg kd+dot
    kd-or-mlkd+lskd kd-zero kdsvd l2 la logits lr lwm mlkd+angular-kd mlkd+tekap norm+crd norm+kd norm-plain
    one pad-l2 pat rc reviewkd++ sobolev tekap(crd) tekap(kd) tekap(kd+crd) tiny-transformers vitkd
    vitkd+nkd wcord wkd-f wkd-l+wkd-f wttm+crd wttm+itrd wttm+vitkd zskt""".split()
)
OF_SUITES = {"mobilenetv1", "resnet10"}  # names that only suites have
NOT_BUILT = set(  # networks that neither kdbench nor timm has
    """mobilenetv2_64px pvt_tiny pyramidnet_110 pyramidnet_200 shufflenetv2_x1_0 shufflenetv2_x1_5 t2t_vit_7
    wrn_16_4 wrn_28_2 wrn_28_4""".split()
)


def test_every_row_of_the_collection_is_there():
    assert len(ROWS) == 2463
    assert ROWS[["value"]].notna().all(axis=None)
    assert ROWS["value"].between(0, 100).all()


def test_names_are_those_of_registry_and_models():
    registry.load(None)
    assert set(ROWS["method"]) - set(registry.names()) == NOT_OURS | {"teacher"}
    assert (set(ROWS["teacher"]) | set(ROWS["student"])) - set(models.names()) == NOT_BUILT | OF_SUITES | {""}


def test_a_variant_is_what_the_method_can_be_set_to():
    registry.load(None)
    for method, variant in ROWS[["method", "variant"]].drop_duplicates().itertuples(index=False):
        for part in variant.split():
            key, _, value = part.partition("=")
            kind = registry.field_type(method, key)
            parsed = kind(value) if kind in (int, float) else value
            assert variant == " ".join(sorted(variant.split()))
            assert kind not in (int, float) or f"{parsed:g}" == value  # as the store's column writes it


@pytest.mark.parametrize(
    ("teacher", "student", "method", "value", "rule", "runs"),
    [
        ("resnet56", "resnet20", "kd", 70.66, "last", 5),
        ("resnet32x4", "resnet8x4", "dkd", 76.32, "best", 5),
        ("resnet50", "mobilenetv2", "crd", 69.11, "last", 3),
        ("wrn_40_2", "shufflenetv1", "at", 73.32, "last", 3),
        ("resnet32x4", "shufflenetv2", "dkd", 77.07, "best", 5),
        ("resnet56", "resnet20", "lskd", 71.43, "best", 4),
        ("resnet110", "resnet20", "ttm", 71.46, "unknown", math.nan),
        ("resnet56", "resnet20", "ce", 69.06, "last", 5),
        ("vgg13", "mobilenetv2", "ce", 64.60, "last", 3),
        ("wrn_40_2", "shufflenetv1", "luminet", 76.95, "best", math.nan),
        ("resnet32x4", "resnet8x4", "norm", 76.49, "best", math.nan),
        ("resnet50", "vgg8", "norm+kd", 75.67, "best", math.nan),
        ("resnet32x4", "resnet8x4", "ldrld", 77.20, "unknown", math.nan),
    ],
)
def test_hand_values(teacher, student, method, value, rule, runs):
    found = published.lookup(CRD, Name("cifar100", teacher, student, method))
    (number,) = found.numbers
    assert (found.low, found.high, number.rule) == (value, value, rule)
    assert number.runs == pytest.approx(runs, nan_ok=True)


@pytest.mark.parametrize("name", ["cifar100", "imagenet", "tiny-imagenet"])
def test_every_pair_of_a_suite_has_kd_teacher_and_plain_student(name):
    for pair in suites.load(name).pairs:
        kd = published.lookup(CRD, Name(name, pair.teacher, pair.student, "kd"))
        teacher = published.lookup(CRD, Name(name, pair.teacher, "", "teacher"))
        student = published.lookup(CRD, Name(name, pair.teacher, pair.student, "ce"))
        assert student.high < kd.low
        assert student.high < teacher.low


@pytest.mark.parametrize("name", ["cifar100", "imagenet", "tiny-imagenet"])
def test_the_suites_expected_teachers_are_the_published_ones(name):
    for teacher, spec in suites.load(name).teachers.items():
        assert published.lookup(CRD, Name(name, teacher, "", "teacher")).low == spec.top1


def rows_of(key, method, teacher, student, **more):
    """The rows of one source's number."""
    wanted = {"key": key, "method": method, "teacher": teacher, "student": student, **more}
    return ROWS[(ROWS[list(wanted)] == list(wanted.values())).all(axis=1)]


def test_dkds_numbers_are_means_of_5_and_3_runs():
    """The paper: 5 on CIFAR-100, 3 on ImageNet; its author: the best epoch. Whoever quotes them quotes that."""
    dkd = ROWS[(ROWS["method"] == "dkd") & (ROWS["variant"] == "") & (ROWS["rule"] == "best")]
    runs = dkd.groupby(["dataset", "origin"])["runs"].agg(["min", "max", "count"])
    assert runs.loc["cifar100"].to_numpy().tolist() == [[5, 5, 11], [5, 5, 40]]
    assert runs.loc["imagenet"].to_numpy().tolist() == [[3, 3, 2], [3, 3, 9]]
    assert dkd[dkd["key"] == "DKD"]["note"].str.contains("mdistiller/issues/30").all()


@pytest.mark.parametrize("key", ["CTKD", "LSKD"])
def test_ctkds_rule_is_probably_best(key):
    (row,) = rows_of(key, "ctkd", "resnet56", "resnet20", variant="").to_dict("records")
    assert (row["value"], row["rule"]) == (71.19, "best")
    assert row["note"].startswith("rule probably best: ")
    assert "logit-standardization-KD/issues/23" in row["note"]
    (number,) = CRD[Name("cifar100", "resnet56", "resnet20", "ctkd")].numbers
    assert (number.rule_said, number.sure) == ("probably best", False)


def test_a_rule_that_is_said_is_sure_whatever_others_guess():
    guess = {"key": "A", "value": 70.0, "std": math.nan, "runs": math.nan, "origin": "own", "rule": "best"}
    guess |= {"note": "rule probably best: a guess"}
    said = guess | {"key": "B", "rule": "last", "note": ""}
    for rows in ([guess, said], [said, guess]):
        (number,) = published._numbers(rows)
        assert (number.rule, number.sure, number.rule_said) == ("last", True, "last")
        assert number.notes == ("rule probably best: a guess",)


@pytest.mark.parametrize(
    ("teacher", "student", "value"),
    [
        ("resnet32x4", "resnet8x4", 78.28),
        ("resnet110", "resnet20", 72.27),
        ("resnet32x4", "wrn_16_2", 77.53),
        ("resnet32x4", "wrn_40_2", 79.66),
        ("vgg13", "mobilenetv2", 70.94),
    ],
)
def test_lskds_single_best_runs_are_not_means_of_4(teacher, student, value):
    """What is printed is to the digit the best epoch of the released log."""
    (row,) = rows_of("LSKD", "mlkd", teacher, student, method_as_printed="MLKD+LSKD").to_dict("records")
    log = rows_of("LSKD-logs", "mlkd", teacher, student, rule="best")
    assert (row["value"], row["runs"], row["rule"]) == (value, 1, "best")
    assert log["value"].tolist() == [value]
    assert "a single run" in row["note"]


def test_lskds_runs_are_4_where_the_number_is_a_mean():
    others = ROWS[(ROWS["key"] == "LSKD") & (ROWS["method_as_printed"] == "MLKD+LSKD") & (ROWS["runs"] != 1)]
    assert set(others["runs"]) == {4}
    quoted = ROWS[(ROWS["key"] == "LSKD") & (ROWS["method_as_printed"] == "MLKD")]
    assert quoted["runs"].isna().all()  # LSKD's 4 runs are not those of MLKD's numbers


def test_two_runs_in_one_log_are_told_apart():
    rows = rows_of("LSKD-logs", "ctkd", "resnet32x4", "wrn_16_2")
    of = rows["note"].str.rpartition(" ")[2]
    assert list(zip(of, rows["rule"], rows["value"], strict=True)) == [
        ("first", "best", 75.53),
        ("second", "best", 74.91),
        ("second", "last", 74.52),
    ]


def test_ofd_is_a_median_of_final_models_or_a_best_one():
    ofd = ROWS[ROWS["key"] == "OFD"]
    cifar, imagenet = (ofd[ofd["dataset"] == name] for name in ("cifar100", "imagenet"))
    assert len(cifar) == 12
    assert set(zip(cifar["rule"], cifar["runs"], strict=True)) == {("last", 5)}
    assert cifar["note"].str.startswith("the median of the final models of 5 runs").all()
    assert set(imagenet["rule"]) == {"best"}
    assert ofd["note"].str.contains("overhaul-distillation/issues/9").all()


def test_slips_of_sources_are_corrected_and_told():
    (ttm,) = ROWS[(ROWS["key"] == "TTM") & (ROWS["value"] == 71.51)].to_dict("records")
    assert (ttm["method"], ttm["method_as_printed"]) == ("dkd+ctkd", "CTKD")
    assert rows_of("CTKD", "dkd+ctkd", "resnet34", "resnet18", metric="top1")["value"].tolist() == [71.51]
    (nkd,) = rows_of("LDRLD", "nkd", "resnet32x4", "shufflenetv1").to_dict("records")
    assert nkd["value"] == 75.31
    assert nkd["note"].startswith("the source prints 76.31: probably a slip")
    assert str(CRD[Name("cifar100", "resnet32x4", "shufflenetv1", "nkd")]) == "75.31"


@pytest.mark.parametrize(("key", "method"), [("LumiNet", "luminet"), ("NORM", "norm"), ("NORM", "norm+kd")])
def test_a_rule_inferred_from_the_code_is_probable(key, method):
    rows = ROWS[(ROWS["key"] == key) & (ROWS["method"] == method) & (ROWS["dataset"] == "cifar100")]
    assert len(rows) == (11 if key == "LumiNet" else 13)
    assert set(rows["rule"]) == {"best"}
    assert rows["note"].str.startswith("rule probably best: ").all()
    assert not any(
        number.sure for name, found in CRD.items() if name.method == method for number in found.numbers
    )


def test_a_method_without_a_configuration_says_so():
    """LumiNet's alpha, T and weight of CE are tuned by pair; its release has them for 6 of 11 pairs and ResNet18."""
    own = ROWS[(ROWS["key"] == "LumiNet") & (ROWS["method"] == "luminet")]
    unknown = own[own["note"].str.contains("no configuration of this pair")]
    pairs = {str(pair): pair for name in ("cifar100", "imagenet") for pair in suites.load(name).pairs}
    tuned = {name for name, pair in pairs.items() if "luminet" in pair.params} | {"resnet32x4:resnet8x4"}
    assert len(unknown) == 6
    assert (
        set(own["teacher"] + ":" + own["student"]) - set(unknown["teacher"] + ":" + unknown["student"])
        == tuned
    )


def test_rerun_baselines_are_told_from_the_published_ones():
    """Marked, and in no comparison: several are far from the numbers of the methods' own papers."""
    skd = ROWS[ROWS["key"] == "SKD"]
    assert skd["source"].str.contains("all rows re-run in one harness").all()
    assert set(skd["protocol"]) == {"other"}
    students = ROWS[(ROWS["key"] == "NORM") & (ROWS["method"] == "ce") & (ROWS["origin"] == "own")]
    assert len(students) == 11
    assert (students["note"] == "a re-run baseline, whose recipe is not said").all()
    assert set(students["protocol"]) == {"other"}


def test_two_numbers_of_one_repository_both_have_a_row():
    dist = rows_of("mmrazor", "dist", "resnet34", "resnet18")
    places = [source.split()[0].rpartition("/")[2] for source in dist["source"]]
    assert list(zip(dist["value"], places, strict=True)) == [(71.61, "metafile.yml"), (71.17, "README.md")]


def test_every_pair_of_the_two_view_suite_has_mlkd():
    book = published.book(ROWS, "twoview")
    for pair in suites.load("cifar100-twoview").pairs:
        found = published.lookup(book, Name("cifar100", pair.teacher, pair.student, "mlkd"))
        assert found.numbers[0].rule == "best"
    assert not [name for name in CRD if name.method == "mlkd"]  # 480 epochs on two views are another protocol


def test_contradicting_sources_are_a_range():
    dist = published.lookup(CRD, Name("cifar100", "wrn_40_2", "wrn_40_1", "dist"))
    assert [n.value for n in dist.numbers] == [74.42, 74.43, 74.73]
    assert str(dist) == "74.42–74.73"
    assert dist.keys == ("KD++", "DIST", "TTM")
    assert dist.numbers[1].std == 0.24
    kd = published.lookup(CRD, Name("cifar100", "resnet32x4", "resnet8x4", "kd"))  # in 14 rows
    assert kd.numbers == (Number(73.33, 0.25, 5, "last", ("CRD",)),)
    assert str(kd) == "73.33"


def test_other_protocols_logs_and_reruns_are_left_out():
    """resnet56 -> resnet20 KD: 71.74 in another harness, 71.4 and 71.54 in issue threads."""
    name = Name("cifar100", "resnet56", "resnet20", "kd")
    every = ROWS[(ROWS["student"] == "resnet20") & (ROWS["teacher"] == "resnet56") & (ROWS["method"] == "kd")]
    assert set(every["value"]) == {70.66, 71.74, 71.4, 71.54}
    assert str(CRD[name]) == "70.66"
    assert str(published.book(ROWS, "other")[name]) == "71.74"
    assert [n.value for n in published.book(ROWS, origins=["user"])[name].numbers] == [71.4, 71.54]
    logs = published.book(ROWS, origins=["log"])[name._replace(method="lskd")]
    assert {number.rule for number in logs.numbers} == {"best", "last"}


def test_a_variant_is_found_in_any_order_of_its_parts():
    name = Name("cifar100", "resnet32x4", "resnet8x4", "dkd")
    found = published.lookup(CRD, name._replace(variant="standardize=true temperature=2 beta=72 alpha=9"))
    assert str(found) == "77.01"
    assert published.lookup(CRD, name._replace(variant="beta=72")) is None
    crd = published.lookup(CRD, name._replace(method="crd", variant="kd_weight=1"))
    assert crd.numbers == (Number(75.46, 0.25, 5, "last", ("CRD",)),)


def test_the_same_name_of_another_network_is_another_student():
    """HSAKD's MobileNetV2 has four times the pixels at every stage."""
    stride = ROWS[(ROWS["key"] == "HSAKD") & (ROWS["student_as_printed"] == "MobileNetV2")]
    assert set(stride["student"]) == {"mobilenetv2_stride1"}


def test_what_is_unknown_is_none():
    assert published.lookup(CRD, Name("cifar100", "resnet56", "resnet8", "kd")) is None
    assert published.lookup(CRD, Name("digits", "resnet56", "resnet20", "kd")) is None


def test_sources_have_full_names():
    names = published.sources(ROWS, ["DKD", "CRD"])
    assert list(names) == ["CRD", "DKD"]
    assert names["CRD"].startswith("arXiv:1910.10699 / README github.com/HobbitLong/RepDistiller")


def test_quoted_numbers_carry_the_rule_of_their_source():
    quoted = ROWS[(ROWS["origin"] == "quoted") & (ROWS["method"] == "at") & (ROWS["dataset"] == "cifar100")]
    assert len(quoted) == 46
    assert (quoted["rule"] == "last").all()
    assert set(quoted["runs"]) == {3, 5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("method,variant", "variant,method", 1), "must have the columns method, variant"),
        (lambda t: t.replace(",last,crd,", ",final,crd,", 1), "rule 'final' is none of last, best"),
        (lambda t: t.replace(",75.61,", ",high,", 1), "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, said):
    (tmp_path / "p.csv").write_text(change(published.FILE.read_text("utf-8")), "utf-8")
    with pytest.raises(KdbenchError, match=said):
        published.load(tmp_path / "p.csv")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(KdbenchError, match="install kdbench again"):
        published.load(tmp_path / "none.csv")


def test_published_does_not_import_torch():
    code = "import sys, kdbench.results.published as p; p.book(p.load()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
