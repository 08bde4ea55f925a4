"""What `tune` refuses, in one sentence, and in which forms it takes ranges."""

from __future__ import annotations

import numpy as np
import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.runner.studies import Budget
from kdbench.runner.tuning import resolve, tune
from kdbench.utils.search_space import linear_range, log_range
from tests.support.cli_process import kdbench, refused
from tests.support.tiny import TUNE, make

pytest.importorskip("optuna", reason="tuning needs the extra kdbench[tune]")
registry.load()


OWN = """
from torch.nn.functional import cross_entropy
from kdbench.method import Method
from kdbench.registry import register


@register
class Own(Method):
    scale: float = 1.0

    def loss(self, batch, student, teacher, modules):
        return {"ce": self.scale * cross_entropy(student.logits, batch.target)}
"""


@pytest.fixture
def place(tmp_path):
    return make(tmp_path / "place")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "3", "--hours", "1"], "not both"),
        (["--teacher-split"], "leave out teacher_weights"),
        (["--methods", "ce"], "nothing to search: ce declares no `space`"),
        (["--methods", "kd,own", "--plugins", "own.py"], "own would stay as it is beside tuned methods"),
        (["--space", "none.toml"], "cannot read none.toml"),
        (["--set", "kd.temperature=3"], "has no option --set"),
    ],
)
def test_a_wrong_command_is_refused(place, arguments, said):
    (place / "own.py").write_text(OWN)
    refused(kdbench(*TUNE, *arguments, cwd=place), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trials": "3"}, "trials must be a whole number greater than 0, got '3'"),
        ({"trials": 2.5}, "trials must be a whole number greater than 0, got 2.5"),
        ({"trials": True}, "trials must be a whole number greater than 0, got True"),
        ({"batch": 0}, "batch must be a whole number greater than 0, got 0"),
        ({"hours": "1"}, "hours must be a number greater than 0, got '1'"),
        ({"hours": -1}, "hours must be a number greater than 0, got -1"),
        ({"prune": "yes"}, "prune must be True or False, got 'yes'"),
        ({"tune_recipe": "lr"}, "tune_recipe must be True or False, got 'lr'"),
        ({"space": 3}, "space is a TOML file or a dict of methods and their ranges, got 3"),
        ({"space": {"kd": 3}}, "space: kd must be a table of ranges"),
        ({"space": {"kd": {"temperature": [1, 2]}}}, "space: kd.temperature takes { log = [low, high] }"),
        (
            {"space": {"kd.temperature": {"log": [1, 2]}}},
            "ranges of kd.temperature, which is not among the methods",
        ),
    ],
)
def test_a_wrong_value_from_python_is_one_sentence(arguments, said):
    with pytest.raises(KdbenchError) as caught:
        tune("digits", "kd", **arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["trial", "sets", "split", "force", "params"])
def test_a_wrong_keyword_is_an_error_about_tune(name):
    with pytest.raises(TypeError, match=rf"tune\(\) got an unexpected keyword argument '{name}'"):
        tune("digits", "kd", **{name: 1})


def test_ranges_may_be_a_dict_and_counts_numpys():
    ranges = {"kd": {"temperature": {"log": (2, 3)}, "kd_weight": linear_range(1, 2)}}
    tuning, _ = resolve("digits", "kd", trials=np.int64(3), space=ranges)
    assert tuning.budget == Budget(trials=3)
    assert dict(tuning.spaces["kd"]) == {"temperature": log_range(2, 3), "kd_weight": linear_range(1, 2)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kd = 3", "kd must be a table of ranges"),
        ("[dist]\nbeta = { log = [1, 2] }", "dist, which is not among the methods"),
        ("[kd]\ntemprature = { log = [1, 2] }", "unknown parameter 'temprature'"),
        ("[kd]\ntemperature = [1, 2]", "{ log = [low, high] }"),
        ("[kd]\ntemperature = { log = 3 }", "log takes a list, got 3"),
        ("[kd]\ntemperature = { log = [0, 2] }", "must begin above 0"),
        ("[kd]\ntemperature = { linear = [-1, 2] }", "must be greater than 0"),
        ("[kd]\nteacher_fix = { log = [1, 2] }", "is no number"),
        ("[kd]\ntemperature = { choice = [2.0, 'a'] }", "kd.temperature takes a"),
        ("[kd]\ntemperature = { choice = [2.0] }", "two different values"),
    ],
)
def test_a_wrong_space_file_is_refused(place, text, said):
    (place / "space.toml").write_text(text)
    refused(kdbench(*TUNE, "--methods", "kd", "--space", "space.toml", "--dry-run", cwd=place), said)


def test_the_plan_has_each_pairs_own_recipe(place):
    text = (place / "tiny.toml").read_text()
    (place / "tiny.toml").write_text(text + "recipe = { lr = 0.5 }\n")
    plan = kdbench(*TUNE, "--methods", "kd", "--tune-recipe", "--dry-run", cwd=place).out
    assert "the recipe of large:small: lr 0.05 to 5, log, weight_decay 5e-05 to 0.005, log" in plan


def test_a_space_file_goes_before_the_methods_own(place):
    (place / "space.toml").write_text(
        "[kd]\ntemperature = { linear = [2, 3] }\nteacher_fix = { choice = ['none', 'swap'] }", "utf-8-sig"
    )
    plan = kdbench(*TUNE, "--methods", "kd", "--space", "space.toml", "--dry-run", cwd=place).out
    assert "kd: temperature 2 to 3, kd_weight 0.09 to 9, log, teacher_fix none or swap" in plan
