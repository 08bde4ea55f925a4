import pytest
import torch
from torch import nn

from kdbench.methods.reviewkd import Fusion, hierarchical_loss
from tests.support import golden, naive, pairs


def pyramid(inputs, case, dtype):
    """The stored fusion modules."""
    hyper = case.hyper
    channels = list(zip(hyper["in_channels"], hyper["out_channels"], strict=True))[::-1]
    modules = nn.ModuleList(
        Fusion(s, hyper["mid_channel"], t, fuse=depth > 0) for depth, (s, t) in enumerate(channels)
    )
    stored = {k.removeprefix("w/abfs."): v for k, v in inputs.items() if k.startswith("w/abfs.")}
    pairs.install(modules, stored, dtype)
    return modules


@golden.each("reviewkd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    student, teacher = (pairs.stage_inputs(inputs, role) for role in ("student", "teacher"))
    if "student_pooled" not in inputs:
        stages = torch.stack([hierarchical_loss(s, t) for s, t in zip(student, teacher, strict=True)])
        golden.close(stages, case.arrays["stage_hcl"], "stage_hcl")
        total = hyper["reviewkd_weight"] * stages.sum()
        golden.check(case, {"hcl": stages.sum(), "total": total}, inputs)
        return
    other = tuple(torch.full_like(m, torch.nan) for m in student)  # must not be read
    own, unread = (student, other) if hyper["stu_preact"] else (other, student)
    fields = {"preact": own[1:], "stages": unread[1:], "embedding": inputs["student_pooled"]}
    theirs = {"preact": teacher[1:], "embedding": inputs["teacher_pooled"]}
    params = {
        "review_weight": hyper["reviewkd_weight"],
        "warmup_epochs": hyper["warmup_epochs"],
        "ce_weight": hyper["ce_weight"],
        "student_preact": hyper["stu_preact"],
    }
    modules = pyramid(inputs, case, dtype)
    _, named = pairs.step("reviewkd", inputs, fields, theirs, modules, float(hyper["epoch"]), **params)
    golden.check(case, named, inputs)


def test_the_pyramid_agrees_with_the_loop():
    student, teacher = pairs.random_map(2, 3, 4, 4), pairs.random_map(2, 3, 4, 4, seed=1)
    total = 0.0
    for level, weight in ((4, 1), (2, 1 / 2), (1, 1 / 4)):
        side, means = 4 // level, []
        for maps in (student, teacher):
            planes = maps.flatten(0, 1).tolist()
            means.append(
                [
                    naive.mean(p[r + i][c + j] for i in range(side) for j in range(side))
                    for p in planes
                    for r in range(0, 4, side)
                    for c in range(0, 4, side)
                ]
            )
        total += weight * naive.mean((a - b) ** 2 for a, b in zip(*means, strict=True))
    assert hierarchical_loss(student, teacher).item() == pytest.approx(total / 1.75, rel=1e-10)


@pytest.mark.parametrize(("height", "weights"), [(1, 1), (2, 1.5), (4, 1.75), (5, 1.875), (8, 1.875)])
def test_a_checkerboard_is_seen_by_the_finest_level_only(height, weights):
    board = (-1.0) ** torch.arange(height)[:, None] * (-1.0) ** torch.arange(height)
    found = hierarchical_loss(board.expand(1, 1, -1, -1), torch.zeros(1, 1, height, height))
    if height % 4 == 0 or height == 2:
        assert found.item() == pytest.approx((1 + (0.5 if height == 4 else 0) * 0) / weights)
    constant = hierarchical_loss(torch.ones(1, 1, height, height), torch.zeros(1, 1, height, height))
    assert constant.item() == pytest.approx(
        1
    )  # every level sees it, and the weights are divided by their sum


def test_fusion_weighs_the_stage_against_the_deeper_ones():
    """Attention of 1 and 0 hands the stage through, of 0 and 1 the deeper map, blown up to its size."""
    fusion = Fusion(2, 2, 2, fuse=True).eval()
    fusion.conv1, fusion.conv2 = nn.Identity(), nn.Identity()
    maps, deeper = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 1, 1)
    for bias, expected in (([99.0, -99.0], maps), ([-99.0, 99.0], deeper.expand(-1, -1, 4, 4))):
        with torch.no_grad():
            fusion.att_conv[0].weight.zero_()
            fusion.att_conv[0].bias.copy_(torch.tensor(bias))
        torch.testing.assert_close(fusion(maps, deeper, (4, 4))[0], expected)
    assert fusion(maps, deeper, (8, 8))[0].shape == (1, 2, 8, 8)


def test_warmup_grows_to_one():
    problem = pairs.Problem("reviewkd")
    at = {epoch: problem.terms(epoch)["review"].item() for epoch in (1.0, 10.0, 20.0, 240.0)}
    assert at[1.0] == pytest.approx(at[240.0] / 20)
    assert at[10.0] == pytest.approx(at[240.0] / 2)
    assert at[20.0] == pytest.approx(at[240.0])


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("reviewkd", student, teacher, student_preact=student == "deep")
