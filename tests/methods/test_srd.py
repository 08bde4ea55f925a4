from math import log, sqrt

import pytest
import torch

from kdbench.methods.srd import correlation_loss, difference_loss, normalised
from kdbench.registry import create
from tests.support import golden, naive, pairs


def projector(inputs, dtype):
    """The projector with the stored weight; the stored bias is removed by the normalisation."""
    sizes = [inputs[f"{role}_embedding"].shape[1] for role in ("student", "teacher")]
    facts = [pairs.facts_of(torch.zeros(1, size, 1, 1)) for size in sizes]
    modules = create("srd", {}).build(pairs.context(10, None, *facts))
    pairs.install(modules, {"weight": inputs["w/embed.weight"]}, dtype)
    return modules


@golden.each("srd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    embeddings = ({"embedding": inputs[f"{role}_embedding"]} for role in ("student", "teacher"))
    params = {"variant": hyper["variant"], "srd_weight": hyper["weight"]}
    terms, _ = pairs.step("srd", inputs, *embeddings, projector(inputs, dtype), **params)
    parts = {"srd": terms["srd"] / hyper["weight"], "total": terms["srd"]}
    if hyper["variant"] == "imagenet":
        parts |= {"kl": terms["kd"], "total": terms["srd"] + hyper["kl_weight"] * terms["kd"]}
    golden.check(case, parts, inputs)


def loop_normalised(rows, eps):
    columns = naive.transposed(rows)
    centred = [[value - naive.mean(column) for value in column] for column in columns]
    return [[v / sqrt(naive.mean(x * x for x in column) + eps) for v in column] for column in centred]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_the_loop(scale):
    student, teacher = scale * pairs.random_map(5, 3), pairs.random_map(5, 3, seed=1)
    both = zip(*(pairs.flat(loop_normalised(e.tolist(), 1e-4)) for e in (student, teacher)), strict=True)
    expected = log(sum((s - t) ** 4 for s, t in both))
    assert difference_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    columns = zip(*(loop_normalised(e.tolist(), 0) for e in (student, teacher)), strict=True)
    expected = log(sum((naive.dot(s, t) / 5 - 1) ** 4 for s, t in columns) + 1e-5)
    assert correlation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_opposite_embeddings():
    """Two samples are normalised to 1 and -1: each of the 2 x 3 differences is 2, each correlation -1."""
    corners = 1e3 * torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], dtype=torch.float64)
    assert difference_loss(corners, -corners).item() == pytest.approx(log(6 * 16), rel=1e-6)
    assert correlation_loss(corners, -corners).item() == pytest.approx(log(3 * 16 + 1e-5))


@pytest.mark.parametrize("dtype", golden.DTYPES.values())
def test_equal_embeddings_are_finite(dtype):
    embedding = pairs.random_map(6, 4).to(dtype).requires_grad_()
    for form, least in ((difference_loss, log(torch.finfo(dtype).tiny)), (correlation_loss, log(1e-5))):
        value = form(embedding, embedding.detach().clone())
        assert value.item() == pytest.approx(least)
        (slope,) = torch.autograd.grad(value, embedding)
        assert slope.abs().max() < 1e-3


def test_a_constant_dimension_is_uncorrelated():
    student, teacher = pairs.random_map(6, 3).requires_grad_(), pairs.random_map(6, 3, seed=1)
    teacher[:, 0] = 7
    rest = correlation_loss(student[:, 1:], teacher[:, 1:]).exp()
    found = correlation_loss(student, teacher)
    assert found.exp().item() == pytest.approx(rest.item() + 1)
    (slope,) = torch.autograd.grad(found, student)
    assert slope[:, 0].abs().max() == 0
    assert normalised(teacher, 1e-15)[:, 0].abs().max() == 0


def test_scale_and_offset_do_not_count():
    student, teacher = pairs.random_map(6, 3), pairs.random_map(6, 3, seed=1)
    moved = 50 * student + torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(correlation_loss(moved, teacher), correlation_loss(student, teacher))
    torch.testing.assert_close(
        difference_loss(moved, teacher), difference_loss(student, teacher), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("variant", ["imagenet", "deit"])
@pairs.on_pairs
def test_on_pairs(student, teacher, variant):
    pairs.check("srd", student, teacher, variant=variant, kd_temperature=4.0)
