"""Which file a teacher's name stands for: the last choice of the suite's architecture, until it is made again."""

import json

import pytest

from kdbench.errors import KdbenchError
from kdbench.suites import ModelSpec
from kdbench.teachers import catalog

DATA = "aaaaaaaaaaaa"
SMALL = ModelSpec("resnet8", {"widths": [4, 4, 8, 8]})


@pytest.fixture
def files(tmp_path):
    folder = catalog.folder(tmp_path)
    folder.mkdir()
    paths = [folder / f"t-{mark}.safetensors" for mark in "abc"]
    for path in paths:
        path.write_text("")
    return paths


def test_nothing_is_chosen_at_first(tmp_path):
    assert catalog.entries(tmp_path, "tiny") == {}
    assert catalog.chosen(tmp_path, "tiny", "t", SMALL, DATA) is None


def test_the_last_choice_counts_and_an_old_one_can_be_made_again(tmp_path, files):
    for number in (0, 1, 0):
        catalog.choose(tmp_path, "tiny", "t", SMALL, files[number], DATA)
        assert catalog.chosen(tmp_path, "tiny", "t", SMALL, DATA) == files[number]
    assert [entry["file"] for entry in catalog.entries(tmp_path, "tiny")["t"]] == [
        "t-b.safetensors",
        "t-a.safetensors",
    ]


def test_choices_are_for_one_name_one_data_set_and_one_architecture(tmp_path, files):
    catalog.choose(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    catalog.choose(tmp_path, "tiny", "t", ModelSpec("resnet8"), files[1], DATA)
    catalog.choose(tmp_path, "tiny", "u", SMALL, files[2], DATA)
    assert catalog.chosen(tmp_path, "tiny", "t", SMALL, DATA) == files[0]
    assert catalog.chosen(tmp_path, "tiny", "t", ModelSpec("resnet8"), DATA) == files[1]
    assert catalog.chosen(tmp_path, "tiny", "t", ModelSpec("resnet14"), DATA) is None
    assert catalog.chosen(tmp_path, "other", "t", SMALL, DATA) is None


def test_a_name_with_a_prefix_lies_deeper(tmp_path, files):
    deep = catalog.folder(tmp_path) / "timm" / "resnet18-a.safetensors"
    deep.parent.mkdir()
    deep.write_text("")
    catalog.choose(tmp_path, "tiny", "timm/resnet18", SMALL, deep, DATA)
    assert catalog.chosen(tmp_path, "tiny", "timm/resnet18", SMALL, DATA) == deep


def test_choices_are_for_the_content_of_a_data_set(tmp_path, files):
    """Two folders called images: neither's teacher is the other's, and each keeps its own."""
    catalog.choose(tmp_path, "images", "t", SMALL, files[0], DATA)
    assert catalog.chosen(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb") is None
    catalog.choose(tmp_path, "images", "t", SMALL, files[1], "bbbbbbbbbbbb")
    assert catalog.chosen(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb") == files[1]
    assert catalog.chosen(tmp_path, "images", "t", SMALL, DATA) == files[0]
    catalog.choose(tmp_path, "images", "t", SMALL, files[1], DATA)
    assert catalog.chosen(tmp_path, "images", "t", SMALL, DATA) == files[1]


def test_an_import_for_other_data_is_warned_of_with_the_remedy(tmp_path, files):
    assert catalog.remark(tmp_path, "images", "t", SMALL, DATA) == ""
    catalog.choose(tmp_path, "images", "t", SMALL, files[0], DATA)
    assert catalog.remark(tmp_path, "images", "t", SMALL, DATA) == ""
    said = catalog.remark(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb")
    assert said.startswith("WARNING: the imported teacher t is not used: it was imported for other data")
    assert f"`kdbench teachers import {files[0]} --name t`" in said
    assert catalog.remark(tmp_path, "images", "t", ModelSpec("resnet14"), "bbbbbbbbbbbb") == ""


def test_a_list_of_an_old_version_is_used_with_a_word(tmp_path, files):
    """It does not say for which data its teachers are; choosing one again does."""
    old = {"t": [{"arch": "resnet8", "args": SMALL.args, "file": files[0].name}]}
    (catalog.folder(tmp_path) / "tiny.json").write_text(json.dumps(old))
    for data in (DATA, "bbbbbbbbbbbb"):
        assert catalog.chosen(tmp_path, "tiny", "t", SMALL, data) == files[0]
        assert "imported before kdbench kept for which data" in catalog.remark(
            tmp_path, "tiny", "t", SMALL, data
        )
    catalog.choose(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    assert catalog.remark(tmp_path, "tiny", "t", SMALL, DATA) == ""
    assert catalog.chosen(tmp_path, "tiny", "t", SMALL, "bbbbbbbbbbbb") is None


def test_a_chosen_file_that_is_gone_is_told_not_replaced(tmp_path, files):
    catalog.choose(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    catalog.choose(tmp_path, "tiny", "t", SMALL, files[1], DATA)
    files[1].unlink()
    with pytest.raises(
        KdbenchError, match=r"t-b\.safetensors is gone, but t stands for it; .*teachers import"
    ):
        catalog.chosen(tmp_path, "tiny", "t", SMALL, DATA)


def test_a_damaged_list_is_told(tmp_path, files):
    catalog.choose(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    (catalog.folder(tmp_path) / "tiny.json").write_text('{"t": [')
    with pytest.raises(KdbenchError, match=r"tiny\.json cannot be read"):
        catalog.chosen(tmp_path, "tiny", "t", SMALL, DATA)
