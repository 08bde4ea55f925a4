from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from kdbench.methods.vkd import OrthogonalLinear, cayley
from tests.support import naive, pairs

SHAPES = [(3, 5), (5, 3), (4, 4)]
SINGLE = {"rtol": 0, "atol": 1e-6}  # the base is made in single precision


def turned(inputs, outputs):
    """A projector that has left its start."""
    modules = OrthogonalLinear(inputs, outputs).double()
    with torch.no_grad():
        modules.weight.copy_(pairs.random_map(*modules.weight.shape, seed=9))
    return modules


def step(student, teacher, modules, **params):
    return pairs.step("vkd", {}, {"embedding": student}, {"embedding": teacher}, modules, **params)[0]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_the_matrix_is_that_of_torch_s_cayley_map(inputs, outputs):
    ours = turned(inputs, outputs)
    theirs = orthogonal(nn.Linear(inputs, outputs, bias=False).double(), orthogonal_map="cayley")
    wide = outputs < inputs
    with torch.no_grad():
        theirs.parametrizations.weight[0].base.copy_(ours.base)
        theirs.parametrizations.weight.original.copy_(ours.weight.T if wide else ours.weight)
    torch.testing.assert_close(ours.matrix, theirs.weight)
    embedding = pairs.random_map(6, inputs)
    torch.testing.assert_close(ours(embedding), theirs(embedding))


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_lengths_and_angles_are_preserved(inputs, outputs):
    matrix = turned(inputs, outputs).matrix
    assert matrix.shape == (outputs, inputs)
    inner = matrix @ matrix.T if outputs < inputs else matrix.T @ matrix
    torch.testing.assert_close(inner, torch.eye(len(inner), dtype=inner.dtype), **SINGLE)


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_every_step_leaves_an_orthogonal_matrix(inputs, outputs):
    """With weight decay too, which turns torch's map of matrices that are not square to 0."""
    modules = OrthogonalLinear(inputs, outputs).double()
    student, teacher = pairs.random_map(8, inputs), pairs.random_map(8, outputs, seed=1)
    optimizer = torch.optim.SGD(modules.parameters(), lr=1.0, momentum=0.9, weight_decay=0.05)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = step(student, teacher, modules)["feature"]
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    matrix = modules.matrix
    inner = matrix @ matrix.T if outputs < inputs else matrix.T @ matrix
    torch.testing.assert_close(inner, torch.eye(len(inner), dtype=inner.dtype), **SINGLE)


def test_it_begins_with_a_random_orthogonal_matrix():
    torch.manual_seed(0)
    one, other = OrthogonalLinear(3, 5), OrthogonalLinear(3, 5)
    torch.testing.assert_close(one.matrix, one.base[:, :3])
    assert not torch.allclose(one.matrix, other.matrix)


def test_a_quarter_turn():
    quarter = cayley(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    torch.testing.assert_close(quarter, torch.tensor([[0.0, -1.0], [1.0, 0.0]]))


def smooth(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def test_agrees_with_the_loop():
    student, teacher = 2 * pairs.random_map(6, 3), 5 * pairs.random_map(6, 4, seed=1) + 2
    modules = turned(3, 4)
    matrix, gaps = modules.matrix.tolist(), []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        centre = naive.mean(t)
        deviation = sqrt(naive.mean((x - centre) ** 2 for x in t) + 1e-5)
        projected = [naive.dot(row, s) for row in matrix]
        gaps += [p - (x - centre) / deviation for p, x in zip(projected, t, strict=True)]
    assert any(abs(gap) < 1 for gap in gaps)
    assert any(abs(gap) > 1 for gap in gaps)
    found = step(student, teacher, modules, feature_weight=3.0)["feature"]
    assert found.item() == pytest.approx(3 * naive.mean(map(smooth, gaps)), rel=1e-10)


def test_a_projected_normalised_teacher_costs_nothing():
    modules, teacher = turned(4, 4), pairs.random_map(6, 4)
    normalised = nn.functional.layer_norm(teacher, (4,))
    assert step(normalised @ modules.matrix, teacher, modules)["feature"].item() == pytest.approx(
        0, abs=1e-12
    )


def test_the_teacher_s_scale_and_offset_do_not_count():
    student, teacher, modules = pairs.random_map(6, 3), 100 * pairs.random_map(6, 4, seed=1), turned(3, 4)
    found = [step(student, t, modules)["feature"] for t in (teacher, 10 * teacher + 3)]
    torch.testing.assert_close(*found, rtol=1e-8, atol=0)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("vkd", student, teacher, kd_temperature=4.0)
