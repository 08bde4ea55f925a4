"""Momentum begins at zeros: the numbers of torch's lazy buffers, and a method may change which parameters it trains."""

import dataclasses

import pandas as pd
import pytest
import torch
from torch import nn

from kdbench.train import optimizers
from kdbench.train.checkpoint import checkpoint_path
from kdbench.train.cohort import train_cohort
from kdbench.utils.state_dicts import load_state
from tests.support.cli_process import kdbench
from tests.support.loops import After, same, state_of
from tests.support.tiny import RUN, make

SETTINGS = [
    {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    for momentum, nesterov in ((0.9, False), (0.9, True), (0.0, False))
    for decay in (0.0, 5e-4)
]


def weights_after(steps, lazy, fused, **settings):
    """Two parameters after ``steps``; every gradient has some +0.0 and -0.0, and the first step's are of both signs."""
    draw = torch.Generator().manual_seed(3)
    weights = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((5, 4), (7,))]
    optimizer = torch.optim.SGD(weights, lr=0.1, fused=fused, foreach=False, **settings)
    if not lazy:
        optimizers.momentum_from_zero(optimizer)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw)
            weight.grad.view(-1)[0], weight.grad.view(-1)[1] = 0.0, -0.0
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("fused", [True, False])
def test_zeros_give_the_bits_of_lazy_buffers(settings, fused):
    """A buffer of a gradient of -0.0 becomes 0.9 * 0 + -0.0 = +0.0: a weight that is not itself -0.0 keeps its bits."""
    for steps in (1, 2, 5):
        lazy, zeros = (weights_after(steps, lazy, fused, **settings) for lazy in (True, False))
        for one, other in zip(lazy, zeros, strict=True):
            assert torch.equal(one.view(torch.int32), other.view(torch.int32))


def test_without_momentum_nothing_is_kept():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, fused=True)
    optimizers.momentum_from_zero(optimizer)
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ({"nesterov": True}, {"weight_decay": 0.0}, {"momentum": 0.0})
        ),
    ],
    ids=str,
)
def test_a_run_keeps_its_bits(lab, monkeypatch, recipe):
    """ce and methods with modules, trained with zeros and with torch's lazy buffers."""
    lab = lab.using(epochs=3, **recipe)
    cells = lab.cells("ce", "kd", "ctkd", "crd", "srrl", "reviewkd")
    zeros = lab.run(cells)
    monkeypatch.setattr(optimizers, "momentum_from_zero", lambda optimizer: None)
    lazy = lab.using(work="lazy").run(cells)
    for name, result in zeros.items():
        assert result.row["status"] == "ok"
        assert same(result.curves, lazy[name].curves), name
        assert same(result.student, lazy[name].student), name


# --- methods of two phases ---

# epochs of 15 reference epochs: two in the first phase, two in the second
PHASES = {"epochs": 4, "reference_epochs": 60, "milestones": (50,)}
TWO_PHASES = ("ab", "ft", "fsp")


@pytest.fixture
def phased(lab):
    """The laboratory with a student as wide as the teacher, so that fsp takes part."""
    models = lab.suite.models | {"student": lab.suite.models["teacher"]}
    return dataclasses.replace(lab, suite=dataclasses.replace(lab.suite, models=models)).using(**PHASES)


@pytest.mark.parametrize("name", TWO_PHASES)
def test_a_change_of_phase_trains_and_resumes(phased, name):
    """Stopped in the first phase, at its end and in the second: the same bits. An epoch asks five times."""
    (cell,) = phased.cells(name)
    whole = phased.run([cell])[name]
    assert whole.row["status"] == "ok", whole.row["error"]
    means = {(epoch, term): value for epoch, term, value in whole.curves}
    term = "loss_paraphrase" if name == "ft" else f"loss_{name}"
    assert [means[epoch, term] > 0 for epoch in (1, 2, 3, 4)] == [True, True, False, False]
    for questions, position in ((7, (1, 2)), (9, (2, 0)), (12, (2, 2))):
        other = phased.using(work=f"stopped{questions}")
        assert train_cohort(other.job([cell]), stop=After(questions))[1]
        state = state_of(other, cell)
        assert (state["epoch"], state["step"]) == position
        resumed = other.run([cell])[name]
        assert same(resumed.student, whole.student), position
        assert same(resumed.curves, whole.curves), position


def test_a_checkpoint_of_lazy_buffers_resumes(phased, monkeypatch):
    """What an earlier version saved in the first phase lacks the buffers of what had no gradient yet."""
    (cell,) = phased.cells("ab")
    whole = phased.run([cell])["ab"]
    old = phased.using(work="old")
    with monkeypatch.context() as lazy:
        lazy.setattr(optimizers, "momentum_from_zero", lambda optimizer: None)
        train_cohort(old.job([cell]), stop=After(7))
    state = load_state(checkpoint_path(old.work, cell.id))["optimizer"]
    parameters = state["param_groups"][0]["params"]
    assert 0 < len(state["state"]) < len(parameters)
    resumed = old.run([cell])["ab"]
    assert resumed.row["status"] == "ok", resumed.row["error"]
    assert same(resumed.student, whole.student)
    assert same(resumed.curves, whole.curves)


@pytest.mark.parametrize("name", ["ab", "ft"])
@pytest.mark.slow
def test_ablate_and_set_cross_the_phases(tmp_path, name):
    """Every variant of the real command line, 8 epochs of 30 reference epochs each: no weight of 0 ends a cell."""
    place = make(tmp_path / "place")
    options = [*RUN[1:], "--epochs", "8", "--set", f"{name}.init_epochs=0,90,240"]
    done = kdbench("ablate", name, *options, "--seeds", "0", cwd=place)
    assert done.code == 0, done.err
    rows = pd.read_csv(place / "results" / "tiny.csv")
    assert set(rows["status"]) == {"ok"}, rows["error"].dropna().to_list()
    assert rows["params"].str.contains("init_epochs").sum() >= 3
    done = kdbench("run", *options, "--methods", name, cwd=place)
    assert done.code == 0, done.err
