import pytest
import torch

from kdbench.methods.at import at_loss, attention
from tests.support import golden, naive, pairs


@golden.each("at")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    stages = [pairs.stage_inputs(inputs, role) for role in ("student", "teacher")]
    params = {
        "at_weight": case.hyper["feat_weight"],
        "ce_weight": case.hyper["ce_weight"],
        "power": case.hyper["p"],
    }
    _, named = pairs.step("at", inputs, *({"stages": s} for s in stages), **params)
    named["stage_losses"] = torch.stack(
        [at_loss(s, t, case.hyper["p"]) for s, t in zip(*stages, strict=True)]
    )
    stage_losses = named.pop("stage_losses")
    golden.close(stage_losses, case.arrays["stage_losses"], "stage_losses")
    golden.check(case, named, inputs)


def loop_attention(sample, power):
    """One sample's [channel][place] -> its attention."""
    heat = [naive.mean(x**power for x in place) for place in naive.transposed(sample)]
    return [x / naive.dot(heat, heat) ** 0.5 for x in heat]


@pytest.mark.parametrize("power", [1, 2, 4])
def test_agrees_with_the_loop(power):
    student, teacher = pairs.random_map(3, 4, 2, 3), pairs.random_map(3, 5, 2, 3, seed=1)
    loops = [[loop_attention(x, power) for x in maps.flatten(2).tolist()] for maps in (student, teacher)]
    expected = naive.mean(
        (a - b) ** 2 for s, t in zip(*loops, strict=True) for a, b in zip(s, t, strict=True)
    )
    assert at_loss(student, teacher, power).item() == pytest.approx(expected, rel=1e-10)


def test_channels_do_not_matter_and_scale_neither():
    maps = pairs.random_map(3, 4, 2, 2)
    shuffled = 7 * maps[:, [2, 0, 3, 1]]
    assert at_loss(maps, shuffled).item() == pytest.approx(0, abs=1e-15)
    assert attention(maps, 2).norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_disjoint_attention_is_the_largest_difference():
    student = torch.tensor([[[[1.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 3.0]]]])
    assert at_loss(student, teacher).item() == pytest.approx((1 + 1) / 2)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("at", student, teacher)
