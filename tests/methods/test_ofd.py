from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from kdbench.method import StageFacts
from kdbench.methods.ofd import Connector, margins, partial_loss
from tests.support import golden, pairs


def connectors(inputs, student, teacher, dtype):
    """The modules with the stored weights; the margins from the stored BatchNorm."""
    modules = nn.ModuleList()
    for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
        bn = (inputs[f"teacher_bn_{part}{i}"] for part in ("weight", "bias"))
        modules.append(Connector(StageFacts(s.shape[1], (1, 1)), StageFacts(t.shape[1], (1, 1), *bn)))
        prefix = f"w/connectors.connectors.{i}."
        stored = {f"connect.{k.removeprefix(prefix)}": v for k, v in inputs.items() if k.startswith(prefix)}
        pairs.install(modules[-1], stored, dtype)
    return modules


@golden.each("ofd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    student, teacher = (pairs.stage_inputs(inputs, role) for role in ("student", "teacher"))
    modules = connectors(inputs, student, teacher, dtype)
    weights = {"ofd_weight": case.hyper["feat_weight"], "ce_weight": case.hyper["ce_weight"]}
    _, found = pairs.step("ofd", inputs, {"preact": student}, {"preact": teacher}, modules, **weights)
    found["margins"] = torch.cat([m.margin for m in modules])
    found["stage_losses"] = torch.stack([m(s, t) for m, s, t in zip(modules, student, teacher, strict=True)])
    for name in case.differentiable:
        (slope,) = torch.autograd.grad(found["total"], inputs[name], retain_graph=True)
        found[f"grad_total__{name}"] = slope
    for name, value in found.items():  # the reference's margins are float32
        expected = case.arrays[name]
        atol = 1e-5 * max(1, np.abs(expected).max()) if dtype == torch.float32 else 1e-9
        rtol = 2e-5 if dtype == torch.float32 else 1e-6
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=rtol, atol=atol, err_msg=name)


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 2, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    margin = torch.tensor([-0.7, -0.2], dtype=torch.float64)
    total = 0.0
    for s_maps, t_maps in zip(student.flatten(2).tolist(), teacher.flatten(2).tolist(), strict=True):
        for s_map, t_map, m in zip(s_maps, t_maps, margin.tolist(), strict=True):
            for s, t in zip(s_map, t_map, strict=True):
                if t > 0 or (t > m and s > t):
                    total += (s - t) ** 2
                elif t <= m and s > m:
                    total += (s - m) ** 2
    assert partial_loss(student, teacher, margin).item() == pytest.approx(total / 3, rel=1e-10)


def test_the_margin_is_the_mean_of_the_negative_part():
    weight, bias = [1.0, -2.0, 0.5], [0.0, 1.0, -3.0]
    found = margins(*(torch.tensor(x, dtype=torch.float64) for x in (weight, bias)))
    for value, s, m in zip(found.tolist(), map(abs, weight), bias, strict=True):
        share = 0.5 * (1 - erf(m / s / sqrt(2)))
        assert value == pytest.approx(m - s * exp(-((m / s) ** 2) / 2) / sqrt(2 * pi) / share)
    assert found[0].item() == pytest.approx(-sqrt(2 / pi))


def test_a_channel_that_is_never_negative_has_three_deviations():
    assert margins(torch.tensor([0.1]), torch.tensor([5.0])).item() == pytest.approx(-0.3)
    assert margins(torch.zeros(2), torch.tensor([1.0, -1.0])).tolist() == [0, -1]


def test_hand_values():
    # a silent neuron below the margin, above it, above the teacher; a firing one; all with margin -1
    student = torch.tensor([[[[-3.0, 0.0, 2.0, 1.0]]]])
    teacher = torch.tensor([[[[-2.0, -2.0, -0.5, 4.0]]]])
    assert partial_loss(student, teacher, torch.tensor([-1.0])).item() == 0 + 1 + 6.25 + 9


def test_a_teacher_without_batchnorm_is_skipped_with_the_reason():
    assert "BatchNorm" in pairs.Problem("ofd", "cnn", "vit").skipped


@pytest.mark.parametrize(("student", "teacher"), [p for p in pairs.PAIRS if p[1] != "vit"])
def test_on_pairs(student, teacher):
    pairs.check("ofd", student, teacher)
