"""`kdbench suites`: the facts must be those of the suite files and of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdbench import models, suites
from kdbench.cli import suites as shown
from tests.support.cli_process import line_of


def test_suites_lists_each_with_its_description():
    text = shown.suites_list()
    assert max(map(len, text.splitlines())) <= 80
    told = " ".join(text.split())
    for name in suites.names():
        assert f"{name} {suites.load(name).description}" in told


def test_one_suite_shows_recipe_models_and_pairs(lab):
    """Sizes by the literature's tables: resnet56 has 861,620 parameters at 100 classes, and 125.8 M MACs."""
    file = lab.suite_file(
        ("classes = 4", "classes = 100"),
        ("size = 8", "size = 32"),
        ("[[pairs]]", '[teachers.resnet56]\ntop1 = 72.34\npretrained = "some.tag"\n[[pairs]]'),
        ('teacher = "teacher"', 'teacher = "resnet56"'),
        ('student = "student"', 'student = "student"\nparams = { dkd = { beta = 2.0 } }'),
    )
    text = shown.suite(str(file), lab.folder)
    assert line_of(text, "epochs ").split() == ["epochs", "2"]
    assert line_of(text, "milestones ").split(maxsplit=1)[1] == "(150, 180, 210)"
    assert line_of(text, "weight_decay ").split() == ["weight_decay", "0.0005"]
    assert line_of(text, "view weak ").split() == ["view", "weak", "pad=1", "flip=True"]
    assert "peak" not in text  # of the other schedule
    assert line_of(text, "resnet56 ").split() == [
        "resnet56", "861,620", "125.8", "M", "72.34", "weights", "some.tag",
    ]  # fmt: skip
    student = line_of(text, "student ").split()
    assert student[4:] == ["–", "resnet8", "widths=[4,", "4,", "8,", "8]"]
    pair = "resnet56:student"
    assert line_of(text, pair).split() == [pair, "dkd.beta=2.0"]
    assert "data tiny: 100 classes, 32 px, holdout 0.1 of train; data not found" in " ".join(text.split())


def test_a_suite_file_is_shown_with_its_pairs_own_recipe(lab):
    file = lab.suite_file(
        ('student = "student"', 'student = "student"\nrecipe = { lr = 0.01 }'),
        ("[[pairs]]", "[teacher_recipe]\nlr = 0.03\n[[pairs]]"),
    )
    text = shown.suite(str(file), lab.data)
    assert text.startswith("tiny: 64 images")
    assert "lr=0.01" in line_of(text, "teacher:student")
    assert line_of(text, "teachers ").split(maxsplit=1)[1] == "trained with lr=0.03"
    assert "64 train and 24 test images, 0 of the test images are in train too" in " ".join(text.split())


def test_test_images_that_are_in_train_too_are_counted(lab):
    arrays = dict(np.load(lab.data / "tiny.npz"))
    arrays["x_test"][3] = arrays["x_train"][5]
    arrays["x_test"][7] = arrays["x_train"][9]
    (lab.folder / "own").mkdir()
    np.savez(lab.folder / "own" / "tiny.npz", **arrays)
    text = shown.suite(str(lab.suite_file()), lab.folder / "own")
    assert ", 2 of the test images are in train too, pixel for pixel" in " ".join(text.split())


def test_a_suite_of_unknown_size_is_measured_on_its_data(lab):
    file = lab.suite_file(("classes = 4\n", ""), ("size = 8\n", ""))
    text = shown.suite(str(file), lab.data)
    assert "data tiny: 4 classes, 8 px" in " ".join(text.split())
    assert line_of(text, "teacher  ").split()[0] == "teacher"
    text = shown.suite(str(file), lab.folder)
    assert "data tiny: ? classes, ? px" in " ".join(text.split())
    assert "MACs" not in text


@pytest.mark.parametrize("name", suites.names())
def test_no_data_is_fetched_for_a_look_at_a_suite(monkeypatch, tmp_path, name):
    """And every shipped suite is readable on 80 columns."""

    create = models.create

    def refuse(*args, **kwargs):
        raise AssertionError("something would be downloaded")

    def without_memory(*args, **kwargs):
        with torch.device("meta"):
            return create(*args, **kwargs)

    monkeypatch.setattr("kdbench.data.sources.fetch", refuse)
    monkeypatch.setattr("kdbench.models.macs", lambda model, size: 10**9)  # only the text counts here
    monkeypatch.setattr("kdbench.models.create", without_memory)
    text = shown.suite(name, tmp_path)
    assert max(map(len, text.splitlines())) <= 80
    assert ("data not found" in " ".join(text.split())) == (suites.load(name).dataset.name != "digits")
