"""Wrong names and values, on the command line and in suite files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_process import kdbench, refused
from tests.support.tiny import RUN, SUITE, make


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "dkdd"], ["unknown method 'dkdd'", "'dkd'"]),
        (["--methods", "zz*"], ["unknown method"]),
        (["--suite", "cifar1000"], ["unknown suite", "cifar100"]),
        (["--suite", "nowhere.toml"], ["nowhere.toml does not exist"]),
        (["--pairs", "large-small"], ["teacher:student"]),
        (["--pairs", "large:resnet21"], ["unknown model 'resnet21'", "did you mean 'resnet"]),
        (["--pairs", "larg:small"], ["larg"]),
        (["--pairs", "timm/resnet18.a1_in2k:small"], ["unknown weights 'a1_in2k'", "did you mean 'a1_in1k'"]),
        (["--pairs", "local-dir:nets/a:small"], ["in quotes 'teacher->student'"]),
        (["--pairs", "local-dir:nets/a->small"], ["there is no nets/a/config.json"]),
        (["--pairs", "large:cifar:resnet21"], ["in quotes 'teacher->student'"]),
        (["--pairs", "large->cifar:resnet21"], ["unknown model 'cifar:resnet21'", "did you mean 'cifar:"]),
        (["--seeds", "a-b"], ["seeds"]),
        (["--set", "kd.temp=2"], ["unknown parameter 'temp' for kd", "temperature, ce_weight, kd_weight"]),
        (["--set", "kd.temperature=warm"], ["kd.temperature takes a float"]),
        (["--set", "kd.temperature=0"], ["greater than 0"]),
        (["--set", "dkd.beta=2"], ["dkd is not among the methods"]),
        (["--set", "temperature=2"], ["method.parameter=value"]),
        (["--device", "cuda:7"], ["there is no device cuda:7"]),
        (["--device", "gpu"], ["unknown device"]),
        (["--epochs", "0"], ["epochs must be greater than 0"]),
        (["--split", "train"], ["holdout"]),
        (["--plugins", "nowhere"], ["nowhere does not exist"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
)
def test_a_wrong_name_or_value_is_told_with_the_right_one(place, arguments, words):
    refused(kdbench(*RUN, *arguments, cwd=place), *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 4", "epoch = 4", ["unknown key 'epoch'", "tiny.toml", "epochs"]),
        ("lr = 0.05\n", "", ["missing key 'lr'", "tiny.toml", "recipe"]),
        ("lr = 0.05", 'lr = "fast"', ["recipe: lr must be of type float"]),
        ('schedule = "step"', 'schedule = "cosinus"', ["unknown value 'cosinus'"]),
        ("classes = 3", "classes = 4", ["4"]),
        ('arch = "resnet8"', 'arch = "resnet8"\nargs = { wide = 2 }', ["wide"]),
        ("[recipe]", "[recipe", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_suite_file_names_file_key_and_remedy(place, old, new, words):
    assert old in SUITE
    (place / "tiny.toml").write_text(SUITE.replace(old, new, 1))
    refused(kdbench(*RUN, cwd=place), *words)
