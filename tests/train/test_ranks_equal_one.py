"""Several ranks train what one process trains, whatever the method: in fp64, so that rounding cannot grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench import registry
from kdbench.contract.toy_suite import ToyRuns
from kdbench.contract.training_lab import PAIRS, TRAINED
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort
from kdbench.utils.status import Status
from tests.support.rank_processes import alone, on_ranks

# 20 steps; of 15 images, shared unevenly by 2, and of 4, which 3 do not share
SUITE = replace(TRAINED, recipe=replace(TRAINED.recipe, batch_size=15))
SHORT = replace(SUITE, recipe=replace(SUITE.recipe, epochs=1))
FEW = [
    "kd",
    "dist",
    "fitnet",
    "crd",
    "tekap",
]  # apart, by the formula, by BatchNorm, with a memory, with noise
CLOSE = 5e-8


@pytest.fixture(autouse=True)
def precise(monkeypatch):
    """What the loop computes in fp32 it computes in fp64, here and in processes forked from here."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(ranks, jobs):
    """(method, teacher) -> the weights of the student and the modules, and the curves, of all that were trained."""
    found = {}
    for job in jobs:
        cohort = Cohort(job, Progress(), ranks=ranks)
        cohort.run(lambda: False)
        for trainee in cohort.trainees:
            if trainee.outcome is None or trainee.outcome[0] != Status.SKIPPED:
                assert trainee.outcome is None, trainee.outcome
                states = [trainee.net.state_dict(), trainee.modules.state_dict()]
                curves = {(epoch, name): value for epoch, name, value in trainee.curves}
                found[trainee.cell.method, trainee.cell.teacher] = states, curves
    return found


def check(folder, suite, methods, world, pairs=PAIRS[:1], **sets):
    registry.load()
    toy = ToyRuns(folder, suite)
    each = [toy.cells(methods, pair, **sets) for pair in pairs]
    one = alone(trained, [toy.job(cells, f"one {k}") for k, cells in enumerate(each)])
    first, *others = on_ranks(trained, world, [toy.job(cells, f"ranks {k}") for k, cells in enumerate(each)])
    assert {method for method, _ in one} == set(methods)
    for cell, (states, curves) in one.items():
        same, own = first[cell]
        for expected, state in zip(states, same, strict=True):
            torch.testing.assert_close(
                state, expected, rtol=CLOSE, atol=CLOSE, msg=lambda m, c=cell: f"{c}: {m}"
            )
        assert own == pytest.approx(curves, rel=CLOSE, abs=CLOSE), cell
        for other in others:
            for state, expected in zip(other[cell][0], same, strict=True):
                assert all(torch.equal(state[name], value) for name, value in expected.items()), cell


def test_ranks_train_what_one_process_trains(tmp_path):
    check(tmp_path, SHORT, FEW, 2)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_train_what_one_process_trains_by_any_method(tmp_path, world):
    registry.load()
    check(tmp_path, SUITE, registry.names(), world, PAIRS)


@pytest.mark.slow
def test_ranks_follow_gradients_by_term_too(tmp_path):
    sets = {"kd": {"momentum_gap": [0.05]}, "dhkd": {"align": [True]}}
    suite = replace(SHORT, recipe=replace(SHORT.recipe, clip=0.5))
    check(tmp_path, suite, list(sets), 2, **sets)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 0.1, "ema": 0.9, "clip": 0.5},
        {"optimizer": "adamw", "optimizer_args": {}},
        {"train_views": ("weak", "strong")},
    ],
    ids=["smoothing", "adamw", "two views"],
)
def test_ranks_follow_the_recipe_too(tmp_path, changes):
    check(tmp_path, replace(SHORT, recipe=replace(SHORT.recipe, **changes)), ["kd", "dist"], 2)
