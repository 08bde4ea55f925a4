"""Method x pair: what the table says, on a suite of two small pairs."""

from __future__ import annotations

from typing import ClassVar

import pytest

from kdbench import registry, suites
from kdbench.contract import compatibility
from kdbench.errors import KdbenchError
from kdbench.method import Method
from tests.support.cli_process import kdbench
from tests.support.tiny import SUITE, make

VIT = """
[models.vit]
arch = "vit_tiny_patch16_224"
args = { img_size = 8, patch_size = 2, depth = 4, embed_dim = 16, num_heads = 2 }
[[pairs]]
teacher = "large"
student = "vit"
[[pairs]]
teacher = "vit"
student = "small"
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "tiny.toml").write_text(SUITE + VIT)
    return suites.load(str(tmp_path / "tiny.toml"))


def test_every_method_runs_or_skips_on_every_pair(suite, scratch_registry):
    found = compatibility.cells(suite, registry.names())
    assert set(found) == {(name, str(pair)) for name in registry.names() for pair in suite.pairs}
    assert not [(*key, cell.reason) for key, cell in found.items() if cell.mark == compatibility.FAILS]
    skipped = {key: cell.reason for key, cell in found.items() if cell.mark == compatibility.SKIPS}
    assert skipped["catkd", "vit:small"].startswith("the teacher's head is not linear")
    assert skipped["fsp", "large:small"].startswith("fsp needs equal channels")
    assert skipped["ofd", "vit:small"].startswith("a stage of the teacher ends in no BatchNorm")
    assert {name for name, pair in skipped if pair == "large:small"} == {"fsp"}
    assert all(cell.reason for cell in found.values() if cell.mark != compatibility.RUNS)


def test_a_method_that_fails_is_marked_and_the_others_go_on(suite, scratch_registry, monkeypatch):
    @registry.register
    class Broken(Method):
        """In its last epoch only."""

        version: ClassVar[int] = 1

        def loss(self, batch, student, teacher, modules):
            if batch.epoch > 100:
                raise IndexError("no such stage")
            return {"ce": student.logits.square().mean()}

    found = compatibility.cells(suite, ["broken", "kd"])
    assert {cell.reason for (name, _), cell in found.items() if name == "broken"} == {
        "IndexError: no such stage"
    }
    assert {cell.mark for (name, _), cell in found.items() if name == "kd"} == {compatibility.RUNS}
    text = compatibility.table(suite, ["broken", "kd"], found)
    assert "broken  XXX\nkd      ..." in text
    assert "broken abc: IndexError: no such stage" in text


def test_a_loss_that_is_not_finite_fails(suite, scratch_registry):
    @registry.register
    class Endless(Method):
        """Its loss."""

        def loss(self, batch, student, teacher, modules):
            return {"ce": student.logits.mean() / 0}

    (first, *_) = compatibility.cells(suite, ["endless"]).values()
    assert first == compatibility.Outcome(compatibility.FAILS, first.reason)
    assert "inf in epoch 1" in first.reason


def test_the_table_fits_a_terminal_and_joins_equal_reasons(suite):
    names = ["longname", "b"]
    cells = {(n, str(p)): compatibility.Outcome(".") for n in names for p in suite.pairs}
    why = "because of a reason that is told at a length which no terminal of eighty columns could show in a line"
    cells["b", "large:small"] = cells["b", "vit:small"] = compatibility.Outcome("n", why)
    lines = compatibility.table(suite, names, cells).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1] == "a=large:small, b=large:vit, c=vit:small"
    assert lines[3:6] == ["method    abc", "longname  ...", "b         n.n"]
    assert lines[7].startswith("b ac: because")
    assert len(lines) == 9


def test_a_suite_that_does_not_say_its_classes_is_refused(suite):
    from dataclasses import replace

    with pytest.raises(KdbenchError, match="does not say its classes and size"):
        compatibility.cells(replace(suite, dataset=replace(suite.dataset, classes=0)), ["kd"])


def test_the_command_prints_the_matrix_of_a_suite(tmp_path):
    place = make(tmp_path / "place")
    done = kdbench("methods", "pairs", "fsp", "--suite", "tiny.toml", cwd=place)
    assert done.code == 0, done.err
    assert "method  a\nfsp     n\n" in done.out
