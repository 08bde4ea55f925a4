"""`kdbench new NAME`: a working plug-in and its test, to be changed into one's own."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.utils.files import write_atomic

PLUGIN = '''"""{name}: what it is, in one sentence. B samples, C classes; logits are [B, C]."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from kdbench.losses import soft_kl
from kdbench.method import Method, Paper
from kdbench.registry import register


def {name}_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float, sharpen: float) -> Tensor:
    """T^2 KL(softmax(a t/T) || softmax(s/T)), mean over the batch, a = sharpen."""
    return soft_kl(student_logits, sharpen * teacher_logits, temperature)


@register
class {title}(Method):
    """Sharpened distillation: match the teacher's softened probabilities after scaling its logits.

    Equation: L = CE + weight T^2 mean_i KL(softmax(sharpen t_i/T) || softmax(s_i/T)).
    Deviations: none.
    """

    paper = Paper(title="The Title", authors=("Your Name",), venue="Venue", year={year}, arxiv="0000.00000")
    family = "logit"
    fidelity = "paper"

    weights: ClassVar = {{"weight": "{name}"}}
    positive: ClassVar = ("temperature", "sharpen")
    temperature: float = 4.0
    sharpen: float = 1.5
    weight: float = 1.0

    def loss(self, batch, student, teacher, modules):
        term = {name}_loss(student.logits, teacher.logits, self.temperature, self.sharpen)
        return {{"ce": cross_entropy(student.logits, batch.target), "{name}": self.weight * term}}
'''

TEST = '''"""{name} against a plain loop, and the contract that every method passes."""

import inspect
import math
from pathlib import Path

import pytest
import torch

from kdbench import checks, registry

FILE = Path(__file__).with_name("{name}.py")
registry.load(FILE)
{name}_loss = inspect.getmodule(registry.get("{name}")).{name}_loss


def softmax(row):
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_the_loss_equals_a_plain_loop():
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64).tolist()
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax([1.5 * v / 4 for v in t]), softmax([v / 4 for v in s])
        expected += 16 / 5 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    got = {name}_loss(torch.tensor(student), torch.tensor(teacher), 4.0, 1.5)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_the_contract_holds():
    table, passed = checks.report(str(FILE), None)
    assert passed, table
'''


def create(name: str, folder: Path) -> list[Path]:
    """Write ``folder/name.py`` and ``folder/test_name.py``; returns both. Never overwrites.

    Raises KdbenchError for a name that is no lower-case identifier or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise KdbenchError(f"a method's name is a lower-case Python name such as mymethod, got {name!r}")
    registry.load()
    if name in registry.names():
        raise KdbenchError(
            f"there is a method {name!r} already ({registry.entry(name).origin}); choose another name"
        )
    files = {folder / f"{name}.py": PLUGIN, folder / f"test_{name}.py": TEST}
    for file in files:
        if file.exists():
            raise KdbenchError(f"{file} exists already; choose another name or --plugins folder")
    try:
        for file, text in files.items():
            filled = text.format(name=name, title=name.capitalize(), year=date.today().year)
            write_atomic(file, filled.encode())
    except OSError as error:
        raise KdbenchError(f"cannot write into {folder} ({error.strerror})") from error
    return list(files)
