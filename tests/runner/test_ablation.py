"""`kdbench ablate`: what is planned, and that it is trained on the holdout split and not twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import pandas as pd
import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.runner import ablation
from tests.support.cli_process import kdbench, refused
from tests.support.tiny import make


@dataclass(frozen=True)
class Made(Method):
    """Three terms, one of them off, and a switch."""

    name = "made"
    weights: ClassVar = {"ce_weight": "ce", "a": "near", "b": ("far", "wide"), "off": "kd"}
    ablate: ClassVar = {"form": ("paper",), "a": (2.0,)}

    ce_weight: float = 1.0
    a: float = 1.0
    b: int = 3
    off: float = 0.0
    form: Literal["code", "paper"] = "code"


def test_each_term_off_each_alone_and_the_switches():
    assert ablation.changes(Made()) == [
        {"ce_weight": 0.0},
        {"a": 0.0},
        {"b": 0},
        {"a": 0.0, "b": 0},  # ce alone
        {"form": "paper"},
        {"a": 2.0},
    ]


def test_alone_is_told_from_without_where_there_are_three_terms():
    found = ablation.changes(Made(off=0.5))
    assert found[:4] == [{"ce_weight": 0.0}, {"a": 0.0}, {"b": 0}, {"off": 0.0}]
    assert found[4] == {"a": 0.0, "b": 0, "off": 0.0}
    assert found[5:8] == [{"b": 0, "off": 0.0}, {"a": 0.0, "off": 0.0}, {"a": 0.0, "b": 0}]


def test_sweeps_are_one_at_a_time_without_duplicates():
    found = ablation.changes(Made(), {"a": [0.0, 1.0, 2.0, 4.0], "b": [3, 9]})
    assert found == [*ablation.changes(Made()), {"a": 4.0}, {"b": 9}]


def test_a_method_without_anything_to_ablate_says_how(scratch_registry):
    @registry.register
    class Plain(Method):
        """One knob."""

        knob: float = 1.0

    with pytest.raises(KdbenchError, match=r"plain declares neither `weights` nor `ablate`.*--set"):
        ablation.resolve("plain", "digits")
    selection, _ = ablation.resolve("plain", "digits", ["plain.knob=2"])
    assert selection.variants == ({"plain": {"knob": [2.0]}},)
    assert (selection.methods, selection.split) == (("plain", "ce", "kd"), "holdout")


def test_terms_that_a_pair_alone_weights_are_left_out_too(tmp_path, scratch_registry):
    registry.register(type("Own", (Made,), {"__module__": __name__}))
    place = make(tmp_path)
    text = (place / "tiny.toml").read_text()
    (place / "tiny.toml").write_text(f"{text}params = {{ own = {{ off = 2.0 }} }}\n")
    selection, _ = ablation.resolve("own", place / "tiny.toml")
    assert {"own": {"off": [0.0]}} in selection.variants


def test_the_command_trains_the_plan_on_the_holdout_split_once(tmp_path):
    place = make(tmp_path / "place")
    options = ["--suite", "tiny.toml", "--data-dir", "data", "--teacher-weights", "teachers", "--epochs", "1"]
    command = ["ablate", "rkd", *options, "--set", "rkd.squared=true,false"]
    planned = kdbench(*command, "--dry-run", cwd=place)
    assert "split holdout" in planned.out
    # full; without ce, distance, angle; ce, distance, angle alone (two of them are there already); squared; ce, kd
    assert "8 cells = 0 done + 8 missing" in planned.out
    done = kdbench(*command, cwd=place)
    assert done.code == 0, done.err
    assert "Δ vs rkd" in done.out
    rows = pd.read_csv(place / "results" / "tiny.csv")
    assert set(rows["split"]) == {"holdout"}
    assert set(rows["status"]) == {"ok"}
    assert sorted(rows["variant"].dropna()) == [
        "angle_weight=0",
        "ce_weight=0",
        "distance_weight=0",
        "distance_weight=0 angle_weight=0",
        "squared=true",
    ]
    alone = rows[rows["variant"] == "distance_weight=0 angle_weight=0"].iloc[0]
    assert json.loads(alone["params"])["ce_weight"] == 1.0
    assert alone["top1"] == rows[rows["method"] == "ce"]["top1"].item()
    again = kdbench(*command, "--dry-run", cwd=place)
    assert "8 cells = 8 done + 0 missing" in again.out
    refused(kdbench("ablate", "dkdd", cwd=place), "did you mean 'dkd'")
