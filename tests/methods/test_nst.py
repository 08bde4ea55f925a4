import pytest
import torch

from kdbench.methods.nst import nst_loss
from tests.support import golden, naive, pairs


@golden.each("nst")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    stages = [pairs.stage_inputs(inputs, role) for role in ("student", "teacher")]
    weights = {"nst_weight": case.hyper["feat_weight"], "ce_weight": case.hyper["ce_weight"]}
    _, named = pairs.step("nst", inputs, *({"stages": s} for s in stages), **weights)
    losses = torch.stack([nst_loss(s, t) for s, t in zip(*stages, strict=True)])
    golden.close(losses, case.arrays["stage_losses"], "stage_losses")
    golden.check(case, named, inputs)


def loop_kernel(first, second):
    """Mean of squared products over samples and pairs of unit channels; [sample][channel][place]."""
    return naive.mean(
        naive.cosine(a, b) ** 2 for x, y in zip(first, second, strict=True) for a in x for b in y
    )


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 2, 2, 3), pairs.random_map(3, 4, 2, 3, seed=1)
    s, t = student.flatten(2).tolist(), teacher.flatten(2).tolist()
    expected = loop_kernel(s, s) + loop_kernel(t, t) - 2 * loop_kernel(s, t)
    assert nst_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_hand_value_and_symmetries():
    one = torch.tensor([[[[5.0, 0.0]]]])
    other = torch.tensor([[[[0.0, 2.0]]]])
    assert nst_loss(one, other).item() == 2  # 1 + 1 - 0
    maps = pairs.random_map(3, 4, 2, 2)
    assert nst_loss(maps, -3 * maps[:, [2, 0, 3, 1]]).item() == pytest.approx(0, abs=1e-15)
    assert nst_loss(maps, maps.repeat(1, 2, 1, 1)).item() == pytest.approx(0, abs=1e-15)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("nst", student, teacher)
