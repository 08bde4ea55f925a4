"""The training step: what is summed, when `update` is called, and one update of the optimiser by hand."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import kdbench
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Method, Needs, Outputs, Views
from kdbench.train.step import Optimisation, Step, call_loss, summed

PACKAGE = Path(kdbench.__file__).parent
STEP = PACKAGE / "train" / "step.py"
SGD = Optimisation(lr=0.1, momentum=0.9, weight_decay=0.01)


class Square(Method):
    """Terms of the logits and of one learned number; `update` writes down what it is handed."""

    name = "square"
    needs = Needs(teacher=False)

    def loss(self, batch, student, teacher, modules):
        logits = student.logits
        return {"size": logits.square().sum(), "pull": modules.gain * logits.sum(), "_logits": logits}

    def update(self, batch, student, teacher, modules, terms):
        assert not torch.is_grad_enabled()
        assert not any(value.requires_grad for value in terms.values())
        modules.seen.append({name: value.clone() for name, value in terms.items()})


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.seen = []


def batch():
    return Batch(torch.tensor([0, 1]), 1.0, False, torch.tensor(0.0), torch.Generator())


def shown(student, *images):
    """One call's outputs for each of ``images``."""
    return [(Views({"weak": Outputs(student(x))}, Square.needs), None) for x in images]


@pytest.fixture
def student():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return layer


ONE, TWO = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])


def test_terms_are_summed_over_calls_without_private_ones(student):
    """Logits (1, 3) and (2, 4), gain 2: 10 + 20 and 2 * (4 + 6)."""
    modules = Gain()
    calls = [call_loss(Square(), batch(), *views, modules) for views in shown(student, ONE, TWO)]
    losses = summed(calls)
    assert {name: value.item() for name, value in losses.terms.items()} == {"size": 30.0, "pull": 20.0}
    assert losses.total.item() == 50.0


@pytest.mark.parametrize("fused", [True, False])
def test_two_steps_are_sgd_by_its_definition(student, fused):
    """g += decay w; v = momentum v + g; w -= lr v, for the student and the modules alike."""
    modules = Gain()
    step = Step(Square(), student, modules, Optimisation(0.1, 0.9, False, 0.01, fused))
    weight, gain = student.weight.detach().clone(), modules.gain.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(gain)]
    for _ in range(2):
        slopes = [torch.zeros_like(weight), weight[:, 0].sum().clone()]
        slopes[0][:, 0] = 2 * weight[:, 0] + gain
        for value, slope, speed in zip((weight, gain), slopes, velocity, strict=True):
            speed.mul_(0.9).add_(slope + 0.01 * value)
            value -= 0.1 * speed
        step(batch(), shown(student, ONE))
    torch.testing.assert_close(student.weight.detach(), weight)
    torch.testing.assert_close(modules.gain.detach(), gain)


def test_update_sees_each_call_before_the_optimiser_moves(student):
    modules = Gain()
    losses = Step(Square(), student, modules, SGD)(batch(), shown(student, ONE, TWO))
    assert [each["_logits"].tolist() for each in modules.seen] == [[[1.0, 3.0]], [[2.0, 4.0]]]
    assert [each["size"].item() for each in modules.seen] == [10.0, 20.0]
    assert not losses.total.requires_grad
    assert student.weight.grad is None
    assert modules.gain.grad is None


def test_the_rate_of_the_next_step_may_be_on_the_device(student):
    """A rate of 0 stands still; 1 without momentum and decay is the gradient itself."""
    step = Step(Square(), student, Gain(), Optimisation(lr=0.0))
    before = student.weight.detach().clone()
    step.move_rate(torch.device("cpu"))
    step(batch(), shown(student, ONE))
    assert torch.equal(student.weight, before)
    step.set_rate(1.0)
    step(batch(), shown(student, ONE))
    assert (before - student.weight.detach())[:, 0].tolist() == [4.0, 8.0]


def test_a_restored_step_goes_on_with_its_momentum(student):
    modules = Gain()
    step = Step(Square(), student, modules, SGD)
    step(batch(), shown(student, ONE))
    weights, state = copy.deepcopy((student.state_dict(), step.state_dict()))
    other, others = nn.Linear(2, 2, bias=False), Gain()
    other.load_state_dict(weights)
    others.load_state_dict(modules.state_dict())
    restored = Step(Square(), other, others, SGD)
    restored.load_state_dict(state)
    for each, net in ((step, student), (restored, other)):
        each(batch(), shown(net, ONE))
    assert torch.equal(other.weight, student.weight)


def test_a_method_without_update_is_not_asked(student):
    class Plain(Square):
        name = "plain"
        update = Method.update

    modules = Gain()
    Step(Plain(), student, modules, SGD)(batch(), shown(student, ONE))
    assert modules.seen == []


def test_what_is_no_scalar_is_refused_by_name(student):
    class Vector(Square):
        name = "vector"

        def loss(self, batch, student, teacher, modules):
            return {"ce": student.logits}

    with pytest.raises(
        KdbenchError, match=r"vector.loss: the term 'ce' must be a 0-dim tensor, got \(1, 2\)"
    ):
        call_loss(Vector(), batch(), *shown(student, ONE)[0], Gain())


# --- nobody else trains ---


def calls_of(file: Path) -> set[str]:
    """Which parts of a training step ``file`` spells out itself."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.optim"):
            found.add("torch.optim")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            if name in ("loss", "backward", "zero_grad") and owner != "self":
                found.add(name)
            if name == "update" and owner.split(".")[-1] in ("method", "trainee"):
                found.add(name)
            if name == "step" and owner.endswith("optimizer"):
                found.add("optimizer.step")
    return found


def test_only_the_step_trains():
    """A second spelling of the step would have to learn each new update rule by itself."""
    everything = {"torch.optim", "loss", "backward", "zero_grad", "update", "optimizer.step"}
    assert calls_of(STEP) == everything
    others = {file: calls_of(file) for file in PACKAGE.rglob("*.py") if file != STEP}
    optimiser = {f"train/{name}.py": {"torch.optim"} for name in ("optimizers", "term_momentum")}
    assert {str(file.relative_to(PACKAGE)): found for file, found in others.items() if found} == optimiser
