"""Names, texts and values of a selection: what is chosen, and what is refused."""

import dataclasses

import numpy as np
import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.plan.selection import parse_seeds, parse_sets, select_methods, select_pairs
from kdbench.suites import Pair

SIX = ["ce", "kd", "dkd", "mlkd", "ctkd", "bickd"]


# --- seeds ---


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-2", [0, 1, 2]),
        ("0,3", [0, 3]),
        ("5", [5]),
        ("2,0-1,7-7", [2, 0, 1, 7]),
        ("1,0-2,1", [1, 0, 2]),
        (" 1 , 3", [1, 3]),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1-", "-1", "0..2", "1.5"])
def test_seeds_that_cannot_be_read_show_how_they_are_written(text):
    with pytest.raises(KdbenchError, match=r"like 0-2 or 0,3, got '" + text.replace(".", r"\.")):
        parse_seeds(text)


def test_seeds_of_a_range_that_runs_backwards():
    with pytest.raises(KdbenchError, match="seeds are written like 0-2 or 0,3, got '2-0'"):
        parse_seeds("2-0")


# --- methods ---


def test_no_pattern_takes_the_suites_methods(lab):
    assert select_methods(None, ("kd", "ce")) == ["kd", "ce"]


def test_all_takes_every_method_that_can_be_used(scratch_registry, tmp_path):
    (tmp_path / "shattered.py").write_text("1 / 0")
    registry.load(tmp_path)
    assert select_methods(["all"], ()) == registry.names()
    assert "shattered" not in registry.names()
    assert set(SIX) <= set(registry.names())


def test_globs_names_and_order(lab):
    assert select_methods(["kd", "?kd", "kd"], ()) == ["kd", *select_methods(["?kd"], ())]
    assert {"bickd", "ctkd", "mlkd", "kd"} <= set(select_methods(["*kd"], ()))
    assert "ce" not in select_methods(["*kd"], ())


@pytest.mark.parametrize(("name", "near"), [("bikcd", "bickd"), ("dkdd", "dkd")])
def test_an_unknown_method_names_the_nearest(lab, name, near):
    with pytest.raises(KdbenchError, match=f"unknown method '{name}'; did you mean '{near}'"):
        select_methods(["ce", name], ())


def test_a_glob_that_matches_nothing_is_an_error(lab):
    with pytest.raises(KdbenchError, match=r"unknown method 'zz\*'"):
        select_methods(["zz*"], ())


@pytest.mark.parametrize("patterns", [[], None])
def test_no_method_at_all_is_an_error_not_an_empty_run(lab, patterns):
    """`--methods ,` would otherwise train nothing and exit with 0."""
    with pytest.raises(KdbenchError, match="no method"):
        select_methods(patterns, ())


def test_a_broken_method_is_an_error_once_it_is_asked_for(scratch_registry, tmp_path):
    (tmp_path / "shattered.py").write_text("import nowhere_at_all")
    registry.load(tmp_path)
    assert select_methods(["kd"], ()) == ["kd"]
    with pytest.raises(KdbenchError, match=r"'shattered'.*fails at import: ModuleNotFoundError"):
        select_methods(["shattered"], ())


# --- pairs ---


def test_pairs_of_the_suite_keep_their_recipe_and_parameters(lab):
    own = Pair("teacher", "student", recipe={"lr": 0.01}, params={"kd": {"temperature": 2.0}})
    suite = dataclasses.replace(lab.suite, pairs=(own, Pair("a", "b")))
    assert select_pairs(suite, None) == list(suite.pairs)
    assert select_pairs(suite, ["teacher:student", "x:y"]) == [own, Pair("x", "y")]


@pytest.mark.parametrize("text", ["student", ":student", "teacher:", ""])
def test_a_pair_without_colon_shows_how_it_is_written(lab, text):
    with pytest.raises(KdbenchError, match=f"teacher:student, got '{text}'; the suite has teacher:student"):
        select_pairs(lab.suite, [text])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("hf-hub:timm/resnet18.a1_in1k->student", ("hf-hub:timm/resnet18.a1_in1k", "student")),
        ("teacher -> local-dir:nets/a", ("teacher", "local-dir:nets/a")),
        ("resnet18.a1_in1k:resnet8", ("resnet18.a1_in1k", "resnet8")),
        ("x->y", ("x", "y")),
    ],
)
def test_a_pair_of_names_with_colons_has_an_arrow(lab, text, names):
    assert select_pairs(lab.suite, [text]) == [Pair(*names)]
    assert select_pairs(lab.suite, [str(Pair(*names))]) == [Pair(*names)]


def test_the_suites_own_pair_may_be_written_with_an_arrow(lab):
    own = Pair("teacher", "student", recipe={"lr": 0.01})
    suite = dataclasses.replace(lab.suite, pairs=(own,))
    assert select_pairs(suite, "teacher->student") == [own]


@pytest.mark.parametrize(
    "text", ["hf-hub:a/b:student", "timm:resnet18:student", "local-dir:nets/a-", "timm:vit"]
)
def test_colons_that_may_divide_twice_need_an_arrow(lab, text):
    with pytest.raises(KdbenchError, match=f"in quotes 'teacher->student' .*got '{text}'"):
        select_pairs(lab.suite, [text])


@pytest.mark.parametrize(
    "pairs",
    [
        ("x", "y"),
        [("x", "y")],
        [["x", "y"]],
        (("x", "y"), "x:y"),
        (pair for pair in [Pair("x", "y")]),
        Pair("x", "y"),
        "x:y,x->y",
    ],
)
def test_a_pair_is_taken_in_any_form(lab, pairs):
    assert select_pairs(lab.suite, pairs) == [Pair("x", "y")]


def test_two_names_may_hold_colons_and_be_the_suites_pair(lab):
    own = Pair("timm:vit", "student", recipe={"lr": 0.01})
    suite = dataclasses.replace(lab.suite, pairs=(own,))
    assert select_pairs(suite, [("timm:vit", "student"), ("cifar:a", "hf-hub:b/c")]) == [
        own,
        Pair("cifar:a", "hf-hub:b/c"),
    ]


@pytest.mark.parametrize("pair", [("a", "b", "c"), ("a",), ("a:b", "c"), ("a", ""), (1, 2), {"a": "b"}, None])
def test_what_are_not_two_names_is_no_pair(lab, pair):
    with pytest.raises(KdbenchError, match="a pair is written teacher:student, got "):
        select_pairs(lab.suite, [pair])


def test_a_list_of_names_is_several_pairs_not_one(lab):
    """As `--pairs a,b` gives it: two students may be meant."""
    with pytest.raises(KdbenchError, match="a pair is written teacher:student, got 'a'"):
        select_pairs(lab.suite, ["a", "b"])


def test_no_pair_at_all_is_an_error_not_an_empty_run(lab):
    with pytest.raises(KdbenchError, match="no pair"):
        select_pairs(lab.suite, [])


# --- --set ---


def test_sets_are_parsed_by_the_fields_type(lab):
    texts = ["kd.temperature=2,4.5", "mlkd.form=code", "dkd.warmup_epochs=5", "ctkd.standardize=true,false"]
    sets = parse_sets(texts, SIX)
    assert sets == {
        "kd": {"temperature": [2.0, 4.5]},
        "mlkd": {"form": ["code"]},
        "dkd": {"warmup_epochs": [5]},
        "ctkd": {"standardize": [True, False]},
    }
    assert [type(v) for v in sets["kd"]["temperature"]] == [float, float]
    assert type(sets["dkd"]["warmup_epochs"][0]) is int


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kd.temp=2", r"unknown parameter 'temp' for kd; it has temperature, ce_weight, kd_weight"),
        ("kd.temperature=warm", r"kd\.temperature takes a float, got 'warm'"),
        ("kd.temperature=2,", r"kd\.temperature takes a float, got ''"),
        ("kd.temperature=nan", r"kd\.temperature takes a finite float"),
        ("dkd.warmup_epochs=2.5", r"dkd\.warmup_epochs takes a int, got '2\.5'"),
        ("ctkd.standardize=yes", r"ctkd\.standardize takes a bool, got 'yes'"),
        ("mlkd.form=papper", r"unknown value 'papper' for mlkd\.form; did you mean 'paper'"),
        ("kd.temperature", r"method\.parameter=value\[,value\].*, got 'kd\.temperature'"),
        ("temperature=2", r"method\.parameter=value"),
        ("ckd.x=2", r"ckd is not among the methods of this run; add it to --methods"),
        ("kdd.temperature=2", r"unknown method 'kdd'; did you mean"),
    ],
)
def test_a_wrong_set_names_the_remedy(lab, text, message):
    with pytest.raises(KdbenchError, match=message):
        parse_sets([text], SIX)


def test_a_value_that_the_method_refuses_names_it(lab):
    with pytest.raises(KdbenchError, match=r"kd\.temperature must be greater than 0, got -1\.0"):
        lab.cells("kd", sets={"kd": {"temperature": [-1.0]}})


def test_the_same_parameter_set_twice_keeps_both(lab):
    """Neither text may vanish silently."""
    sets = parse_sets(["kd.temperature=1,2", "kd.temperature=2,3"], SIX)
    assert sets["kd"]["temperature"] == [1.0, 2.0, 3.0]


def test_a_dict_gives_one_value_or_several(lab):
    sets = {
        "kd.temperature": [2, np.float32(4.5), 2.0],
        "mlkd.form": "code,paper",
        "dkd.warmup_epochs": np.int64(5),
        "ctkd.standardize": (True, False),
        "dkd.beta": np.linspace(1, 2, 2),
    }
    parsed = parse_sets(sets, SIX)
    assert parsed == {
        "kd": {"temperature": [2.0, 4.5]},
        "mlkd": {"form": ["code", "paper"]},
        "dkd": {"warmup_epochs": [5], "beta": [1.0, 2.0]},
        "ctkd": {"standardize": [True, False]},
    }
    values = [value for params in parsed.values() for listed in params.values() for value in listed]
    assert {type(value) for value in values} == {float, str, int, bool}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"kd": {"temperature": 2}}, r"in Python sets=\{'method\.parameter': value or values\}\), got 'kd'"),
        ({"kd.temperature": True}, r"kd\.temperature takes a finite float, got True"),
        ({"kd.temperature": None}, r"kd\.temperature takes a finite float, got None"),
        ({"kd.temperature": []}, "got 'kd.temperature'"),
        ({3: 2}, "got 3"),
        ([("kd.temperature", 2)], r"got \('kd.temperature', 2\)"),
    ],
)
def test_a_wrong_dict_names_the_remedy(lab, sets, message):
    with pytest.raises(KdbenchError, match=message):
        parse_sets(sets, SIX)
