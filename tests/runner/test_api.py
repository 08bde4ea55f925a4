"""`kdbench.run` from Python: what it takes, what it refuses, what it returns."""

import dataclasses
import html
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.nn.functional import cross_entropy

import kdbench
from kdbench import registry
from kdbench.cli.main import main
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.plan.selection import parse_seeds, select
from kdbench.results import store
from kdbench.runner.options import NAMES, RunOptions
from kdbench.runner.run import resolve, run
from kdbench.suites import load
from tests.support.heard import Heard

DIGITS = load("digits")


@pytest.fixture
def mine(scratch_registry):
    """A class as in a cell of a notebook: not registered yet."""

    class Mine(Method):
        weight: float = 1.0

        def loss(self, batch, student, teacher, modules):
            return {"ce": self.weight * cross_entropy(student.logits, batch.target)}

    return Mine


# --- arguments ---


def test_every_option_of_the_command_is_a_parameter():
    command = {option.name for option in main.commands["run"].params} - {
        "dry_run",
        "time_steps",
        "price",
        "help",
    }
    parameters = inspect.signature(run).parameters
    assert command <= set(parameters)
    assert set(parameters) - command == {"progress"}
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())
    assert all(name in run.__doc__ for name in parameters)
    assert set(parameters) > NAMES


def test_defaults_are_those_of_the_options():
    parameters = inspect.signature(run).parameters
    for field in dataclasses.fields(RunOptions):
        assert str(parameters[field.name].default) == str(field.default)


def test_a_wrong_keyword_is_an_error_about_run():
    with pytest.raises(TypeError, match=r"run\(\) got an unexpected keyword argument 'seed'"):
        kdbench.run("digits", seed=[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": "digit"}, "unknown suite 'digit'; did you mean 'digits'"),
        ({"suite": 3}, "suite takes a name, a .toml file or a kdbench.Suite, got 3"),
        ({"methods": "kd,dkdd"}, "unknown method 'dkdd'; did you mean 'dkd'"),
        ({"methods": [3]}, "methods are given by name, or as Method classes or objects; got 3"),
        ({"methods": []}, "no method is chosen"),
        ({"methods": dict}, "Method classes or objects; got <class 'dict'>"),
        (
            {"methods": {"kd": {"temperature": 2}}},
            "values of parameters are given by sets={'method.parameter': value}",
        ),
        ({"pairs": [("a", "b", "c")]}, "a pair is written teacher:student, got ('a', 'b', 'c')"),
        ({"seeds": 0.0}, "a seed must be a whole number of at least 0, got 0.0"),
        ({"sets": {"temperature": 2}}, "--set takes method.parameter=value"),
        ({"params": {"kd": {}}}, "params is the path of a file that `kdbench tune` writes, got {'kd': {}}; "),
        ({"epochs": "3"}, "epochs must be of type int, got '3'"),
        ({"epochs": 0}, "epochs must be greater than 0, got 0"),
        ({"per_class": 1.5}, "per_class must be a whole number of at least 1, got 1.5"),
        ({"precision": "fp8"}, "unknown value 'fp8'"),
        ({"split": "train"}, "unknown split 'train'"),
        ({"results": 3}, "results must be the path of a folder, got 3"),
        ({"jobs": 1.0}, "jobs must be a whole number of at least 1, got 1.0"),
        ({"jobs": True}, "jobs must be a whole number of at least 1, got True"),
        ({"workers": -1}, "workers must be a whole number of at least 0, got -1"),
        ({"max_hours": "1"}, "max_hours must be a number of at least 0, got '1'"),
        ({"device": 0}, "device is a text like auto, cpu or cuda:0, got 0"),
        ({"force": "yes"}, "force must be True or False, got 'yes'"),
        ({"plugins": "nowhere"}, "plug-in folder nowhere does not exist"),
    ],
)
def test_a_wrong_value_is_one_sentence(arguments, message):
    with pytest.raises(KdbenchError) as caught:
        resolve(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (3, [3]),
        (np.int64(3), [3]),
        ([0, 2], [0, 2]),
        ((1, 1, 0), [1, 0]),
        (range(3), [0, 1, 2]),
        (np.arange(2), [0, 1]),
        ({5}, [5]),
        ("0-2", [0, 1, 2]),
    ],
)
def test_seeds_are_ints_in_any_form(seeds, expected):
    assert parse_seeds(seeds) == expected
    assert all(type(seed) is int for seed in parse_seeds(seeds))


@pytest.mark.parametrize(
    "seeds", [1.0, True, [True], [0.5], -1, [-1], ["0"], None, np.array([0.0]), [], range(0), "", "x"]
)
def test_seeds_of_another_kind_are_refused(seeds):
    with pytest.raises(KdbenchError, match="seed"):
        parse_seeds(seeds)


def test_numbers_of_numpy_are_plain_ones(lab):
    numpys = {
        "epochs": np.int64(3),
        "lr": np.float64(0.25),
        "clip": np.float32(0.5),
        "per_class": np.int32(2),
    }
    plain = {"epochs": 3, "lr": 0.25, "clip": 0.5, "per_class": 2}
    selection, _ = resolve("digits", "kd", **numpys)
    assert selection == resolve("digits", "kd", **plain)[0]
    assert {type(getattr(selection.suite.recipe, key)) for key in ("lr", "clip")} == {float}
    assert type(selection.suite.recipe.epochs) is int


@pytest.mark.parametrize("call", [kdbench.run, kdbench.tune])
@pytest.mark.parametrize("progress", [True, False, print, Heard])
def test_progress_is_an_object_of_progress(call, progress):
    with pytest.raises(KdbenchError, match=r"progress is a kdbench\.train\.callbacks\.Progress "):
        call("digits", "kd", progress=progress)


# --- methods as objects ---


def test_a_class_is_registered_and_named(mine):
    selection = select(DIGITS, ["ce", mine])
    assert selection.methods == ("ce", "mine")
    assert registry.get("mine") is mine
    assert select(DIGITS, mine).methods == ("mine",)


def test_an_object_brings_its_own_values(mine):
    registry.register(mine)
    selection = select(DIGITS, [mine(weight=2.0), "kd"], sets="kd.temperature=2,3")
    assert selection.methods == ("mine", "kd")
    assert selection.overrides == {"kd": {"temperature": [2.0, 3.0]}, "mine": {"weight": [2.0]}}
    assert selection.variants == ()


def test_several_objects_of_one_class_are_variants(mine):
    registry.register(mine)
    selection = select(DIGITS, ["mine", mine(weight=2.0), mine(weight=3.0), mine(weight=2.0)])
    assert selection.overrides == {}
    assert selection.variants == ({"mine": {"weight": [2.0]}}, {"mine": {"weight": [3.0]}})


def test_values_from_two_sides_are_refused(mine):
    registry.register(mine)
    with pytest.raises(KdbenchError, match="both methods and sets give parameters of mine"):
        select(DIGITS, [mine(weight=2.0)], sets=["mine.weight=3"])


def test_a_class_without_source_says_that_it_has_no_hash(lab):
    space = {"__name__": "__main__", "Method": Method, "cross_entropy": cross_entropy}
    text = (
        "class Typed(Method):\n    def loss(self, batch, student, teacher, modules):\n"
        "        return {'ce': cross_entropy(student.logits, batch.target)}\n"
    )
    exec(text, space)
    space["Typed"].__module__ = "a_prompt"
    heard = Heard()
    where = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu", "progress": heard}
    weights = lab.folder / "weights"
    weights.mkdir()
    (weights / "teacher.safetensors").write_bytes(lab.teacher.path.read_bytes())
    outcome = run(lab.suite, ["ce", space["Typed"]], seeds=0, teacher_weights=weights, **where)
    assert outcome.exit_code == 0
    assert any("the source of typed cannot be read" in text for text in heard.said)
    found = outcome.rows.set_index("method")
    assert (found["code_hash"].isna()).to_dict() == {"ce": False, "typed": True}
    assert found.loc["typed", "nll"] == found.loc["ce", "nll"]  # the same loss
    _check_outcome(outcome, lab)


def _check_outcome(outcome, lab):
    assert repr(outcome) == "<tiny: 2 of 2 cells done>"
    assert len(outcome.cells) == 2
    assert {"cell_id", "run_id", "epoch", "term", "value"} == set(outcome.curves.columns)
    assert set(outcome.curves["cell_id"]) == set(outcome.rows["cell_id"])
    assert "typed" in outcome.leaderboard(baseline="ce")
    assert f"\n\n{html.escape(outcome.leaderboard())}</pre>" in outcome._repr_html_()
    assert outcome.leaderboard()._repr_html_() == f"<pre>{html.escape(outcome.leaderboard())}</pre>"
    rows = kdbench.load_results(lab.folder / "results")
    assert rows["cell_id"].tolist() == outcome.rows["cell_id"].tolist()
    assert kdbench.load_results(lab.folder / "results" / "tiny.csv", "tiny").equals(rows)
    for suite in ("tiny.toml", Path("suites/tiny.toml"), lab.suite):
        assert kdbench.load_results(lab.folder / "results", suite).equals(rows)
    with pytest.raises(KdbenchError, match="has no rows of suite 'tin'; it has tiny"):
        kdbench.load_results(lab.folder / "results", "tin")


# --- suites built in Python ---


def test_a_built_suite_is_that_of_its_file(lab):
    built = dataclasses.replace(load("digits"), name="digits")
    selection, _ = resolve(built, "kd")
    assert selection == resolve("digits", "kd")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a suite needs a name"),
        ({"seeds": ("0",)}, r"suite digits: seeds\[0\] must be of type int"),
        ({"methods": ("kd", "kd")}, "methods lists kd twice"),
        ({"recipe": dataclasses.replace(DIGITS.recipe, lr=-1.0)}, "lr must be greater than 0"),
        ({"params": {"kd": {"temp": 1.0}}}, "unknown parameter 'temp' for kd"),
    ],
)
def test_a_mistake_in_a_built_suite_is_one_sentence(changes, message):
    with pytest.raises(KdbenchError, match=message):
        resolve(dataclasses.replace(DIGITS, **changes))


# --- the module ---


def test_importing_kdbench_imports_neither_torch_nor_pandas(tmp_path):
    code = "import sys, kdbench; dir(kdbench); sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
    code = "import sys, kdbench; kdbench.Suite, kdbench.View; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_every_public_name_is_there():
    assert all(getattr(kdbench, name) is not None for name in kdbench.__all__)
    assert set(kdbench.__all__) <= set(dir(kdbench))
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        kdbench.runs  # noqa: B018


def test_results_that_are_not_there(tmp_path):
    with pytest.raises(
        KdbenchError, match=r"there is no .*none; name a folder .* \(a suite by suite='.*none'\)"
    ):
        kdbench.load_results(str(tmp_path / "none"))
    with pytest.raises(
        KdbenchError, match=r"path is one folder of results or one \.csv file of it, got \['a', 'b'\]"
    ):
        kdbench.load_results(["a", "b"])
    assert list(kdbench.load_results(tmp_path).columns) == store.COLUMNS
