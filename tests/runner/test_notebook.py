"""Methods of a notebook or a script: they reach other processes, and their rows say what is known of their code."""

import subprocess
import sys
import threading

import pytest
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.results import store
from kdbench.runner.describe import announce_missing
from kdbench.runner.missing import Missing
from tests.support.cli_process import ENVIRONMENT
from tests.support.tiny import make

# no source, annotations as texts, a base and functions of its own
CELL = """
from __future__ import annotations
from typing import Literal
import kdbench
from kdbench.method import Method
from torch.nn.functional import cross_entropy
SCALE = 2.0
def scaled(logits, target):
    return SCALE * cross_entropy(logits, target)
@kdbench.register
class Base(Method):
    kind: Literal["sum", "mean"] = "sum"
    def loss(self, batch, student, teacher, modules):
        return {"ce": scaled(student.logits, batch.target)}
@kdbench.register
class Mine(Base):
    gain: float = 1.0
    def loss(self, batch, student, teacher, modules):
        return {"ce": self.gain * super().loss(batch, student, teacher, modules)["ce"]}
"""
RUN = """
for results, jobs in (("one", 1), ("two", 2)):
    kdbench.run("tiny.toml", ["mine", Base(kind="mean"), "kd"], seeds="0-1", epochs=1, data_dir="data", jobs=jobs,
                teacher_weights="teachers", results=results, device="cpu")
one, two = (kdbench.load_results(name).sort_values(["method", "seed"]) for name in ("one", "two"))
assert list(two["executor"]) == ["processes"] * 6, two["executor"]
assert list(one["status"]) == list(two["status"]) == ["ok"] * 6, two["error"]
assert list(one["final_loss"]) == list(two["final_loss"])
assert list(one["cell_id"]) == list(two["cell_id"])
"""
SENT = """
import sys
from pathlib import Path
Path("sent").write_bytes(kdbench.registry.packed(["mine", "base", "mine"]))
"""
RECEIVED = """
from pathlib import Path
from kdbench import registry
registry.unpack(Path("sent").read_bytes())
from kdbench.method import parameter_types
print(sorted(parameter_types(registry.get("mine"))), registry.create("mine", {"kind": "mean"}).kind)
"""


def interpreter(text, cwd):
    """What Python says to ``text`` that is typed into it."""
    command = [sys.executable, "-"]
    done = subprocess.run(
        command, input=text, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_class_of_one_interpreter_works_in_another(tmp_path):
    interpreter(CELL + SENT, tmp_path)
    assert interpreter(RECEIVED, tmp_path) == "['gain', 'kind', 'momentum_gap', 'teacher_fix'] mean\n"


@pytest.mark.slow
def test_several_jobs_give_the_numbers_of_one(tmp_path):
    make(tmp_path / "place")
    interpreter(CELL + RUN, tmp_path / "place")


@pytest.fixture
def typed(scratch_registry):
    """A class as a notebook has it: its module is ``__main__``, and no file holds it."""

    class Typed(Method):
        def loss(self, batch, student, teacher, modules):
            return {"ce": cross_entropy(student.logits, batch.target)}

    Typed.__module__ = "__main__"
    return Typed


def test_what_cannot_travel_is_one_sentence(typed):
    lock = threading.Lock()

    def loss(self, batch, student, teacher, modules):
        with lock:
            return {"ce": student.logits.sum()}

    loss.__module__ = "__main__"
    typed.loss = loss
    registry.register(typed)
    with pytest.raises(
        KdbenchError, match=r"typed cannot be sent to other processes \(.*lock.*\); use jobs=1"
    ):
        registry.packed(["typed"])
    assert registry.packed(["kd"]) == b""


@pytest.mark.parametrize(
    ("code", "words"),
    [("0123456789ab", "is of its class alone"), ("", "cannot be read: its rows carry no code_hash")],
)
def test_what_is_known_of_its_code_is_said(typed, lab, monkeypatch, code, words):
    monkeypatch.setattr(registry.codehash, "class_hash", lambda cls: code)
    monkeypatch.setattr(registry, "_origin", lambda cls: lab.folder / "<__main__>")
    registry.register(typed)
    said = []
    inputs = lab.inputs(methods=["typed"])
    cells = inputs.cells()
    announce_missing(
        Missing(cells, {}),
        inputs.workspace.selection,
        cells,
        store.read(lab.folder / "none.csv"),
        said.append,
    )
    assert [words in line for line in said] == [True], said
