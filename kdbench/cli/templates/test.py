"""mymethod against a plain loop, and the contract that every method passes."""

import math
import sys
from pathlib import Path

import pytest
import torch

from kdbench import contract, registry

FILE = Path(__file__).with_name("mymethod.py")
registry.load(FILE)
mymethod_loss = sys.modules[registry.get("mymethod").__module__].mymethod_loss


def softmax(row):
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_the_loss_equals_a_plain_loop():
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64).tolist()
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax([1.5 * v / 4 for v in t]), softmax([v / 4 for v in s])
        expected += 16 / 5 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    loss = mymethod_loss(torch.tensor(student), torch.tensor(teacher), 4.0, 1.5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_contract_holds():
    table, passed = contract.report(str(FILE), None)
    assert passed, table
