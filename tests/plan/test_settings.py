"""Settings of single methods and pairs: their file, and the cells that they become."""

import dataclasses

import pandas as pd
import pytest

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import select
from kdbench.plan.settings import Setting, read, write
from kdbench.results import store
from kdbench.runner.describe import announce_missing
from kdbench.runner.missing import find_missing

registry.load()
PAIR = "digits_teacher:digits_student"
KD = Setting("kd", PAIR, {"temperature": 2.5, "kd_weight": 3.0}, {"lr": 0.02}, "tuned (8 trials)")
IDS = {"digits_teacher": "0123456789ab"}


def test_a_file_gives_back_what_was_written(tmp_path):
    settings = [KD, Setting("dist", 'a "b":c', {"beta": 1e-05, "form": "ü", "on": True}, {}, "x")]
    (tmp_path / "a.toml").write_text(write(settings), "utf-8")
    assert read(tmp_path / "a.toml") == settings
    (tmp_path / "a.toml").write_text(write(settings), "utf-8-sig")  # as Notepad saves it
    assert read(tmp_path / "a.toml") == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no"),
        ("[[settings]]\nmethod = 'kd'", "has method, pair and params"),
        ("[[settings]]\nmethod = 'kd'\npair = 'a:b'\nparams = 3", "has method, pair and params"),
        ("[[settings]]\nmethod = 3\npair = 'a:b'\nparams = {}", "has method, pair and params"),
        ("[[settings]]\nmethod = 'kd'\npair = 'a:b'\nparams = {}\nlr = 1", "has method, pair and params"),
        ("settings = 3", "holds no"),
        ("kd = ", "is not valid TOML"),
    ],
)
def test_another_file_is_refused(tmp_path, text, said):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(KdbenchError, match=said):
        read(tmp_path / "a.toml")
    with pytest.raises(KdbenchError, match="cannot read"):
        read(tmp_path / "none.toml")


def _cells(*settings, methods=("kd", "dkd")):
    selection = select(suites.load("digits"), list(methods), PAIR, seeds=[0, 1], settings=settings)
    return plan_cells(selection, "split", IDS)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [([KD], False), ([KD, dataclasses.replace(KD, params={"temperature": 8.0}, label="x")], True)],
)
def test_one_setting_beside_the_default_is_no_choice_by_the_test_images(settings, warned):
    selection = select(suites.load("digits"), ["kd"], PAIR, seeds=[0], settings=settings)
    cells, rows, said = plan_cells(selection, "split", IDS), pd.DataFrame(columns=store.COLUMNS), []
    announce_missing(find_missing(rows, cells), selection, cells, rows, said.append)
    assert any("several values of kd.temperature" in line for line in said) == warned


def test_a_setting_stands_beside_the_suites_values():
    plain, both = _cells(), _cells(KD)
    assert both[: len(plain)] == plain
    added = both[len(plain) :]
    assert [(cell.method, cell.seed, cell.variant) for cell in added] == [
        ("kd", 0, "tuned (8 trials)"),
        ("kd", 1, "tuned (8 trials)"),
    ]
    assert added[0].params == {**plain[0].params, "temperature": 2.5, "kd_weight": 3.0}
    assert added[0].recipe == dataclasses.replace(plain[0].recipe, lr=0.02)
    assert added[0].teacher_id == IDS["digits_teacher"]
    assert len({cell.id for cell in both}) == len(both)


def test_a_setting_of_the_suites_values_is_no_cell_of_its_own():
    assert _cells(Setting("kd", PAIR, {"temperature": 4.0})) == _cells()


def test_settings_of_other_methods_are_left_out_but_not_all():
    assert _cells(KD, Setting("dist", PAIR, {"beta": 2.0})) == _cells(KD)
    with pytest.raises(KdbenchError, match="none of the settings"):
        _cells(Setting("dist", PAIR, {"beta": 2.0}))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (Setting("kd", PAIR, {"temprature": 2.0}), "unknown parameter 'temprature'"),
        (Setting("kd", PAIR, {"temperature": -2.0}), "must be greater than 0"),
        (Setting("kd", PAIR, {}, {"rate": 0.1}), "unknown key 'rate'"),
    ],
)
def test_a_wrong_value_is_named(setting, said):
    with pytest.raises(KdbenchError, match=said):
        _cells(setting)
