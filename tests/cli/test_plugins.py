"""Plug-ins on the command line: broken ones leave the other methods alone, working ones run like any method."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_process import kdbench, refused
from tests.support.tiny import RUN, make, rows


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


PLUGIN = """
import torch
from torch.nn.functional import cross_entropy
from kdbench.method import Method
from kdbench.registry import register

{top}

@register
class Mine(Method):
    weight: float = 1.0

    def build(self, context):
        {build}
        return torch.nn.Module()

    def loss(self, batch, student, teacher, modules):
        ce = cross_entropy(student.logits, batch.target)
        {loss}
"""


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        ({"top": "import no_such_module"}, 1, ["'mine'", "fails at import", "no_such_module"]),
        ({"build": "raise RuntimeError('no bricks')"}, 1, ["mine cannot train large:small", "no bricks"]),
        ({"build": "return None"}, 1, ["mine.build must return a torch.nn.Module"]),
        (
            {"loss": "raise ValueError('lost')"},
            1,
            ["mine cannot train large:small: ValueError: lost", "--methods"],
        ),
        ({"loss": "return {'ce': ce.expand(2)}"}, 1, ["'ce' must be a 0-dim tensor, got (2,)"]),
        ({"loss": "pass"}, 1, ["mine.loss must return a dict"]),
        ({"loss": "return {'ce': ce + student.embedding.sum()}"}, 1, ["'embedding'", "needs"]),
        (
            {"loss": "assert batch.progress < 0.9, 'at the end'; return {'ce': ce}"},
            1,
            ["mine cannot train large:small", "at the end"],
        ),
        # what a trial cannot see
        ({"loss": "return {'ce': ce * float('nan')}"}, 3, ["diverged", "nan"]),
        (
            {"loss": "assert not 0.5 < batch.progress < 0.9, 'late'; return {'ce': ce}"},
            3,
            ["mine failed in a training step", "late"],
        ),
    ],
)
def test_a_broken_plug_in_is_named_before_anything_trains(place, broken, code, words):
    (place / "plugins").mkdir()
    text = PLUGIN.format(**{"top": "", "build": "pass", "loss": "return {'ce': ce}", **broken})
    (place / "plugins" / "mine.py").write_text(text)
    done = kdbench(*RUN, "--methods", "kd,mine", "--plugins", "plugins", cwd=place)
    refused(done, *words, code=code)
    assert (place / "results" / "tiny.csv").exists() == (code == 3)
    if code == 3:
        table = rows(place).set_index("method")
        assert table.loc["kd", "status"] == "ok"
        assert table.loc["mine", "status"] in ("error", "diverged")


def test_a_working_plug_in_runs_like_any_method(place):
    (place / "plugins").mkdir()
    text = PLUGIN.format(top="", build="pass", loss="return {'ce': self.weight * ce}")
    (place / "plugins" / "mine.py").write_text(text)
    done = kdbench(
        *RUN, "--methods", "ce,mine", "--plugins", "plugins", "--set", "mine.weight=1,2", cwd=place
    )
    assert done.code == 0, done.err
    table = rows(place)
    plain = table[table["method"] == "ce"].iloc[0]
    same = table[(table["method"] == "mine") & table["variant"].isna()].iloc[0]
    assert same["nll"] == plain["nll"]  # the same loss on the same batches from the same weights
    assert "mine" in kdbench("methods", "--plugins", "plugins", cwd=place).out
