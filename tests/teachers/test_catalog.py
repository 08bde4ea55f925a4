"""The latest import of the suite's architecture is the file that a teacher's name stands for."""

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


def test_no_file_is_assigned_at_first(tmp_path):
    assert catalog.entries(tmp_path, "tiny") == {}
    assert catalog.assigned_file(tmp_path, "tiny", "t", SMALL, DATA) is None


def test_the_latest_import_counts_and_can_be_repeated(tmp_path, files):
    for number in (0, 1, 0):
        catalog.assign(tmp_path, "tiny", "t", SMALL, files[number], DATA)
        assert catalog.assigned_file(tmp_path, "tiny", "t", SMALL, DATA) == files[number]
    assert [entry["file"] for entry in catalog.entries(tmp_path, "tiny")["t"]] == [
        "t-b.safetensors",
        "t-a.safetensors",
    ]


def test_imports_are_per_name_data_set_and_architecture(tmp_path, files):
    catalog.assign(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    catalog.assign(tmp_path, "tiny", "t", ModelSpec("resnet8"), files[1], DATA)
    catalog.assign(tmp_path, "tiny", "u", SMALL, files[2], DATA)
    assert catalog.assigned_file(tmp_path, "tiny", "t", SMALL, DATA) == files[0]
    assert catalog.assigned_file(tmp_path, "tiny", "t", ModelSpec("resnet8"), DATA) == files[1]
    assert catalog.assigned_file(tmp_path, "tiny", "t", ModelSpec("resnet14"), DATA) is None
    assert catalog.assigned_file(tmp_path, "other", "t", SMALL, DATA) is None


def test_a_name_with_a_prefix_has_a_subfolder(tmp_path, files):
    deep = catalog.folder(tmp_path) / "timm" / "resnet18-a.safetensors"
    deep.parent.mkdir()
    deep.write_text("")
    catalog.assign(tmp_path, "tiny", "timm/resnet18", SMALL, deep, DATA)
    assert catalog.assigned_file(tmp_path, "tiny", "timm/resnet18", SMALL, DATA) == deep


def test_imports_are_per_content_of_a_data_set(tmp_path, files):
    """Two folders called images: each has a teacher of its own."""
    catalog.assign(tmp_path, "images", "t", SMALL, files[0], DATA)
    assert catalog.assigned_file(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb") is None
    catalog.assign(tmp_path, "images", "t", SMALL, files[1], "bbbbbbbbbbbb")
    assert catalog.assigned_file(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb") == files[1]
    assert catalog.assigned_file(tmp_path, "images", "t", SMALL, DATA) == files[0]
    catalog.assign(tmp_path, "images", "t", SMALL, files[1], DATA)
    assert catalog.assigned_file(tmp_path, "images", "t", SMALL, DATA) == files[1]


def test_an_import_for_other_data_is_a_warning_with_the_remedy(tmp_path, files):
    assert catalog.data_remark(tmp_path, "images", "t", SMALL, DATA) == ""
    catalog.assign(tmp_path, "images", "t", SMALL, files[0], DATA)
    assert catalog.data_remark(tmp_path, "images", "t", SMALL, DATA) == ""
    warning = catalog.data_remark(tmp_path, "images", "t", SMALL, "bbbbbbbbbbbb")
    assert warning.startswith("WARNING: the imported teacher t is not used: it was imported for other data")
    assert f"`kdbench teachers import {files[0]} --name t`" in warning
    assert catalog.data_remark(tmp_path, "images", "t", ModelSpec("resnet14"), "bbbbbbbbbbbb") == ""


def test_a_list_of_an_old_version_is_used_with_a_remark(tmp_path, files):
    """It does not record for which data its teachers are; importing one again does."""
    old = {"t": [{"arch": "resnet8", "args": SMALL.args, "file": files[0].name}]}
    (catalog.folder(tmp_path) / "tiny.json").write_text(json.dumps(old))
    for data in (DATA, "bbbbbbbbbbbb"):
        assert catalog.assigned_file(tmp_path, "tiny", "t", SMALL, data) == files[0]
        assert "imported before kdbench recorded for which data" in catalog.data_remark(
            tmp_path, "tiny", "t", SMALL, data
        )
    catalog.assign(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    assert catalog.data_remark(tmp_path, "tiny", "t", SMALL, DATA) == ""
    assert catalog.assigned_file(tmp_path, "tiny", "t", SMALL, "bbbbbbbbbbbb") is None


def test_an_assigned_file_that_is_gone_is_an_error(tmp_path, files):
    catalog.assign(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    catalog.assign(tmp_path, "tiny", "t", SMALL, files[1], DATA)
    files[1].unlink()
    with pytest.raises(
        KdbenchError, match=r"t-b\.safetensors is gone, but t stands for it; .*teachers import"
    ):
        catalog.assigned_file(tmp_path, "tiny", "t", SMALL, DATA)


def test_a_damaged_list_is_an_error(tmp_path, files):
    catalog.assign(tmp_path, "tiny", "t", SMALL, files[0], DATA)
    (catalog.folder(tmp_path) / "tiny.json").write_text('{"t": [')
    with pytest.raises(KdbenchError, match=r"tiny\.json cannot be read"):
        catalog.assigned_file(tmp_path, "tiny", "t", SMALL, DATA)
