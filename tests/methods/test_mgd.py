import pytest
import torch
from torch import nn

from kdbench.methods.mgd import MGD, Generator, generation_loss, hide
from kdbench.registry import create
from tests.support import golden, pairs
from tests.support.standins import batch


@golden.each("mgd")
def test_reference(case, dtype, monkeypatch):
    """The stored draws in place of the batch's."""
    inputs, hyper = case.inputs(dtype), case.hyper
    maps = [inputs[f"{role}_feat"] for role in ("student", "teacher")]
    modules = create("mgd", {}).build(pairs.context(10, None, *map(pairs.facts_of, maps)))
    stored = {k.removeprefix("w/"): v for k, v in inputs.items() if k.startswith("w/")}
    pairs.install(modules, stored, dtype)
    draws = inputs["mask_uniform"]
    monkeypatch.setattr(MGD, "draw", lambda *_: draws)
    params = {"mgd_weight": hyper["alpha"], "mask_ratio": hyper["mask_ratio"]}
    student, teacher = ({"features": m} for m in maps)
    terms, named = pairs.step("mgd", inputs, student, teacher, modules, **params)
    golden.check(case, {**named, "mgd": terms["mgd"] / hyper["alpha"]}, inputs)
    kept = hide(torch.ones_like(draws), draws, hyper["mask_ratio"]).sum()
    assert kept.item() == case.arrays["kept_channels"]


def convolved(maps, weight, bias):
    """One sample's maps [channels][rows][columns] through a 3x3 convolution with zeros around."""
    height, width = len(maps[0]), len(maps[0][0])
    inside = lambda i, j: 0 <= i < height and 0 <= j < width  # noqa: E731
    return [
        [
            [
                b
                + sum(
                    kernel[c][di + 1][dj + 1] * maps[c][i + di][j + dj]
                    for c in range(len(maps))
                    for di in (-1, 0, 1)
                    for dj in (-1, 0, 1)
                    if inside(i + di, j + dj)
                )
                for j in range(width)
            ]
            for i in range(height)
        ]
        for kernel, b in zip(weight, bias, strict=True)
    ]


@pytest.mark.parametrize("mask", ["channel", "position"])
def test_agrees_with_the_loop(mask):
    torch.manual_seed(0)
    student, teacher = pairs.random_map(3, 2, 3, 2), pairs.random_map(3, 2, 3, 2, seed=1)
    modules = Generator(2, 2).double()
    sides = ({"features": m} for m in (student, teacher))
    params = {"mgd_weight": 0.5, "mask_ratio": 0.5, "mask": mask}
    terms, _ = pairs.step("mgd", {}, *sides, modules, **params)
    shape = (3, 2, 1, 1) if mask == "channel" else (3, 1, 3, 2)
    draws = torch.rand(shape, generator=batch([0]).generator).expand(3, 2, 3, 2).tolist()
    layers = [[x.tolist() for x in modules.generation[i].parameters()] for i in (0, 2)]
    total = 0.0
    for s, t, u in zip(student.tolist(), teacher.tolist(), draws, strict=True):
        hidden = [
            [[x if r >= 0.5 else 0.0 for x, r in zip(*rows, strict=True)] for rows in zip(*maps, strict=True)]
            for maps in zip(s, u, strict=True)
        ]
        inner = [[[max(0.0, x) for x in row] for row in m] for m in convolved(hidden, *layers[0])]
        found = pairs.flat(pairs.flat(convolved(inner, *layers[1])))
        total += sum((a - b) ** 2 for a, b in zip(found, pairs.flat(pairs.flat(t)), strict=True))
    assert terms["mgd"].item() == pytest.approx(0.5 * total / 3, rel=1e-10)


def test_hand_values():
    """A generator that passes everything on: what is hidden costs the square of the teacher's map."""
    modules = Generator(2, 2)
    modules.generation = nn.Identity()
    maps = torch.tensor([[[[2.0]], [[3.0]]]])
    draws = torch.tensor([0.14, 0.15]).view(1, 2, 1, 1)
    assert generation_loss(modules(maps, draws, 0.15), maps).item() == 4.0
    assert generation_loss(modules(maps, draws, 0.0), maps).item() == 0.0
    assert generation_loss(modules(maps, draws, 1.0), maps).item() == 13.0


@pytest.mark.parametrize(("mask", "units"), [("channel", 64 * 32), ("position", 64 * 16)])
def test_the_share_that_is_hidden(mask, units):
    """Whole channels or whole positions, a share of mask_ratio of them; another set in the next step."""
    method = create("mgd", {"mask": mask, "mask_ratio": 0.3})
    maps, generator = torch.ones(64, 32, 4, 4), batch([0]).generator
    first, second = (hide(maps, method.draw(maps, generator), 0.3) for _ in range(2))
    assert not torch.equal(first, second)
    whole = first.mean(dim=(2, 3)) if mask == "channel" else first.mean(dim=1)
    assert whole.numel() == units
    assert set(whole.flatten().tolist()) == {0.0, 1.0}
    assert 1 - whole.mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / units) ** 0.5)


def test_equal_channels_need_no_alignment():
    assert isinstance(Generator(4, 4).align, nn.Identity)
    assert Generator(4, 5).align.weight.shape == (5, 4, 1, 1)


def test_the_larger_map_is_pooled():
    problem = pairs.Problem("mgd", "vit", "wide", mask_ratio=0.0)
    student, teacher = problem.views()
    assert (student.features.shape[2], teacher.features.shape[2]) == (4, 2)
    pooled = torch.nn.functional.adaptive_avg_pool2d(student.features, 2)
    found = problem.modules(pooled, torch.ones(1, 1, 1, 1), 0.0)
    both = zip(found.flatten().tolist(), teacher.features.flatten().tolist(), strict=True)
    expected = 0.00007 * sum((a - b) ** 2 for a, b in both) / pairs.B
    assert problem.terms()["mgd"].item() == pytest.approx(expected, rel=1e-4)


@pairs.on_pairs
@pytest.mark.parametrize("mask", ["channel", "position"])
def test_on_pairs(student, teacher, mask):
    pairs.check("mgd", student, teacher, mask=mask)
