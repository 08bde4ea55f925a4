"""Every registered method through the real harness: it learns on real digits, and it takes a step from CNN to ViT."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kdbench import matrix, registry, run, suites
from kdbench.suites import FOLDER
from tests.tiny import SUITE, make

registry.load()


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[pd.DataFrame, pd.Series]:
    """All methods on the digits suite for three epochs: records and curves by (cell, term, epoch)."""
    place: Path = tmp_path_factory.mktemp("digits")
    text = (FOLDER / "digits.toml").read_text()
    short = text.replace("[teacher_recipe]", "[teacher_recipe]\nepochs = 8", 1)
    assert short != text
    (place / "digits.toml").write_text(short)
    outcome = run(str(place / "digits.toml"), ["all"], seeds=[0], epochs=3, results=place / "results")
    curves = pd.read_csv(place / "results" / "digits.curves.csv")
    return outcome.records.set_index("method"), curves.set_index(["cell_id", "term", "epoch"])[
        "value"
    ].sort_index()


@pytest.mark.parametrize("name", registry.names())
def test_it_learns_on_digits(digits, name):
    """The loss falls; where the temperature climbs it on purpose (a partial gradient), accuracy rises."""
    records, curves = digits
    record = records.loc[name]
    if record["status"] == "skipped":
        assert record["error"]
        return
    assert record["status"] == "ok", record["error"]
    first, *_, last = curves[record["cell_id"], "loss"]
    if last >= first:
        assert registry.get(name).partial_gradient
        first, *_, last = curves[record["cell_id"], "train_top1"]
        assert last > first


VIT = """
[models.vit]
arch = "vit_tiny_patch16_224"
args = { img_size = 8, patch_size = 2, depth = 4, embed_dim = 16, num_heads = 2 }
[models.large]"""
TO_VIT = SUITE.replace("\n[models.large]", VIT).replace('"small"', '"vit"')


@pytest.fixture(scope="module")
def to_vit(tmp_path_factory) -> pd.DataFrame:
    """All methods from a CNN to a ViT, one epoch of three batches."""
    place = make(tmp_path_factory.mktemp("vit") / "place")
    (place / "tiny.toml").write_text(TO_VIT)
    outcome = run(
        str(place / "tiny.toml"),
        ["all"],
        epochs=1,
        data_dir=place / "data",
        teacher_weights=place / "teachers",
        results=place / "results",
    )
    return outcome.records.set_index("method")


@pytest.mark.parametrize("name", registry.names())
def test_a_cnn_teaches_a_vit_or_the_reason_is_said(to_vit, name):
    record = to_vit.loc[name]
    assert record["status"] in ("ok", "skipped"), record["error"]
    assert (record["status"] == "skipped") == isinstance(record["error"], str)


def test_the_matrix_says_what_the_harness_does(to_vit, tmp_path):
    (tmp_path / "tiny.toml").write_text(TO_VIT)
    found = matrix.cells(suites.load(str(tmp_path / "tiny.toml")), registry.names())
    for (name, _), cell in found.items():
        record = to_vit.loc[name]
        assert (cell.mark == matrix.SKIPS) == (record["status"] == "skipped"), name
        assert cell.reason == (record["error"] if record["status"] == "skipped" else ""), name
