"""The learning rate of each step, and the epochs after which students are evaluated."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from kdbench import suites
from kdbench.suites import Recipe
from kdbench.train.schedule import evaluates, learning_rate


def recipe(**changes):
    known = {
        "epochs": 240, "reference_epochs": 240, "batch_size": 64, "lr": 0.05, "momentum": 0.9, "nesterov": False,
        "weight_decay": 5e-4, "schedule": "step", "precision": "fp32", "eval_every": 1,
        "milestones": (150, 180, 210),
    }  # fmt: skip
    return Recipe(**(known | changes))


def test_step_decay_is_torchs_multisteplr_over_240_epochs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [150, 180, 210], gamma=0.1)
    for epoch in range(240):
        expected = scheduler.get_last_lr()[0]
        for step in (0, 781):
            assert learning_rate(recipe(), epoch, step, 782) == pytest.approx(expected, rel=1e-12), epoch
        optimizer.step()
        scheduler.step()


def test_step_decay_by_hand():
    """CRD's code: the rate falls in the epochs 151, 181 and 211, counted from 1."""
    rates = [learning_rate(recipe(), epoch - 1, 0, 782) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5])


@pytest.mark.parametrize("epochs", [8, 16, 48, 480])
def test_milestones_keep_their_share_when_epochs_change(epochs):
    rates = [learning_rate(recipe(epochs=epochs), epoch, 0, 1) for epoch in range(epochs)]
    falls = [e / epochs for e in range(1, epochs) if rates[e] < rates[e - 1]]
    assert falls == [150 / 240, 180 / 240, 210 / 240]


def test_one_cycle_by_hand():
    """10 epochs of 2 steps, the peak at 0.3: up through 0.025/0.3, down through 0.7 to 0.025/0.7."""
    cycle = recipe(schedule="onecycle", epochs=10, lr=0.1)
    assert learning_rate(cycle, 0, 0, 2) == pytest.approx(0.1 * 0.025 / 0.3)
    assert learning_rate(cycle, 2, 1, 2) == pytest.approx(0.1 * 0.275 / 0.3)
    assert learning_rate(cycle, 3, 0, 2) == pytest.approx(0.1 * 0.675 / 0.7)
    assert learning_rate(cycle, 9, 1, 2) == pytest.approx(0.1 * 0.025 / 0.7)
    rates = [learning_rate(cycle, epoch, step, 2) for epoch in range(10) for step in range(2)]
    rise, fall = np.diff(rates[:6]), np.diff(rates[6:])
    assert rise == pytest.approx(0.1 * 0.05 / 0.3)
    assert fall == pytest.approx(-0.1 * 0.05 / 0.7)
    assert 0 < min(rates) < max(rates) < 0.1


@pytest.mark.parametrize(
    ("changes", "evaluated"),
    [
        ({}, [10, *range(20, 241, 10)]),
        ({"milestones": (150, 180, 210)}, [*range(10, 211, 10), *range(211, 241)]),
        (
            {"milestones": (150, 180, 210), "epochs": 24},
            [10, 20, 22, 23, 24],
        ),  # 21 of 24 stand for 210 of 240
        ({"milestones": (150, 180, 210), "schedule": "onecycle"}, list(range(10, 241, 10))),
    ],
)
def test_every_epoch_after_the_last_milestone_is_evaluated(changes, evaluated):
    recipe = suites.load("cifar100").recipe
    recipe = dataclasses.replace(recipe, **{"eval_every": 10, "milestones": (), **changes})
    assert [e + 1 for e in range(recipe.epochs) if evaluates(recipe, e)] == evaluated
