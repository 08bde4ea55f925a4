import pytest
import torch

from kdbench.methods.fsp import flow, flow_losses
from tests.support import golden, naive, pairs


@golden.each("fsp")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    stages = [pairs.stage_inputs(inputs, role) for role in ("student", "teacher")]
    given = ({"stages": maps} for maps in stages)
    _, named = pairs.step("fsp", inputs, *given, epoch=1.0, fsp_weight=case.hyper["beta"])
    golden.close(torch.stack(flow_losses(*stages)), case.arrays["pair_losses"], "pair_losses")
    golden.check(case, named, inputs)


def test_the_flow_agrees_with_the_loop():
    bottom, top = pairs.random_map(2, 3, 2, 2), pairs.random_map(2, 4, 2, 2, seed=1)
    expected = [
        [[naive.mean(x * y for x, y in zip(b, t, strict=True)) for b in bottoms] for t in tops]
        for bottoms, tops in zip(bottom.flatten(2).tolist(), top.flatten(2).tolist(), strict=True)
    ]
    torch.testing.assert_close(flow(bottom, top), torch.tensor(expected, dtype=torch.float64))


def test_hand_values():
    ones = torch.ones(1, 1, 2, 2)
    assert flow(2 * ones, 3 * ones[:, :, :1, :1]).tolist() == [[[6]]]
    student, teacher = (ones, 3 * ones, ones), (ones, ones, 2 * ones)
    assert [x.item() for x in flow_losses(student, teacher)] == [(3 - 1) ** 2, (3 - 2) ** 2]


def test_first_the_flow_then_the_labels():
    problem = pairs.Problem("fsp", "cnn", "cnn")
    early, late = problem.terms(30.0), problem.terms(31.0)
    assert early["fsp"] > 0
    assert late["ce"] > 0
    assert early["ce"] == early["kd"] == late["fsp"] == 0


def test_unequal_channels_are_skipped_with_the_reason():
    assert "equal channels" in pairs.Problem("fsp", "cnn", "wide").skipped
    assert "equal channels" in pairs.Problem("fsp", "cnn", "vit").skipped


@pytest.mark.parametrize("kind", ["cnn", "deep", "vit"])
def test_on_pairs(kind):
    pairs.check("fsp", kind, kind)
