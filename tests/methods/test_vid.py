from math import exp, log

import pytest
import torch
from torch import nn

from kdbench.methods.vid import Predictor
from tests.support import golden, naive, pairs


@golden.each("vid")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    stages = [pairs.stage_inputs(inputs, role) for role in ("student", "teacher")]
    channels = [(s.shape[1], t.shape[1]) for s, t in zip(*stages, strict=True)]
    modules = nn.ModuleList(Predictor(*c, case.hyper["init_pred_var"]) for c in channels)
    pairs.install(modules, {k[2:]: v for k, v in inputs.items() if k.startswith("w/")}, dtype)
    params = {"vid_weight": case.hyper["beta"], "ce_weight": 0.0}
    _, named = pairs.step("vid", inputs, *({"stages": s} for s in stages), modules, **params)
    losses = torch.stack([m(s, t) for m, s, t in zip(modules, *stages, strict=True)])
    golden.close(losses, case.arrays["stage_losses"], "stage_losses")
    golden.check(case, named, inputs)


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 1, 2, 2), pairs.random_map(3, 1, 2, 2, seed=1)
    predict = Predictor(1, 1, 5.0).double()
    with torch.no_grad():
        for place, weight in ((0, 2.0), (2, -1.0), (4, 3.0)):
            predict.regressor[place].weight.fill_(weight)
        predict.log_scale.fill_(0.3)
    variance = log(1 + exp(0.3)) + 1e-5
    both = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    mean = lambda s: 3 * max(0, -max(0, 2 * s))  # noqa: E731
    expected = naive.mean(0.5 * ((mean(s) - t) ** 2 / variance + log(variance)) for s, t in both)
    assert predict(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_the_best_variance_is_the_mean_squared_error():
    student, teacher = torch.zeros(3, 2, 2, 2), 3.0 * torch.ones(3, 2, 2, 2)
    predict = Predictor(2, 2, 9.0)
    (slope,) = torch.autograd.grad(predict(student, teacher), predict.log_scale)
    assert slope.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert predict(student, teacher).item() == pytest.approx(0.5 * (1 + log(9)))


def test_a_large_scale_stays_finite_in_float32():
    predict = Predictor(2, 2, 5.0)
    with torch.no_grad():
        predict.log_scale.fill_(200.0)
    assert predict(torch.ones(2, 2, 2, 2), torch.ones(2, 2, 2, 2)).isfinite()


def test_a_variance_that_does_not_learn_is_no_parameter():
    modules = pairs.Problem("vid", learn_variance=False).modules
    assert not [name for name, _ in modules.named_parameters() if name.endswith("log_scale")]
    assert torch.nn.functional.softplus(modules[0].log_scale).tolist() == pytest.approx([5] * 6, rel=1e-5)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("vid", student, teacher)
