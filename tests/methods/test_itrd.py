from math import log2

import pytest
import torch

from kdbench.methods.itrd import correlation_loss, mutual_loss, standard
from kdbench.registry import create
from tests.support import naive, pairs


@pytest.mark.parametrize("alpha", [1.0, 1.01, 1.5])
def test_the_correlation_agrees_with_the_loop(alpha):
    student, teacher = pairs.random_map(5, 3), pairs.random_map(5, 3, seed=1)
    total = 0.0
    for s, t in zip(naive.transposed(student.tolist()), naive.transposed(teacher.tolist()), strict=True):
        s, t = ([x - naive.mean(column) for x in column] for column in (s, t))
        deviation = (naive.dot(s, s) / 4) ** 0.5 * (naive.dot(t, t) / 4) ** 0.5
        total += abs(naive.dot(s, t) / deviation / 5 - 1) ** (2 * alpha)
    assert correlation_loss(student, teacher, alpha).item() == pytest.approx(log2(total), rel=1e-10)


def test_the_mutual_term_agrees_with_the_loop():
    student, teacher = pairs.random_map(4, 3), pairs.random_map(4, 5, seed=1)
    own, other = ([[naive.cosine(a, b) for b in x] for a in x] for x in (student.tolist(), teacher.tolist()))
    places = [(i, j) for i in range(4) for j in range(4)]
    # the traces of cosines and of their products are both B
    expected = sum((own[i][j] / 4) ** 2 - (own[i][j] * other[i][j] / 4) ** 2 for i, j in places)
    assert mutual_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_perfect_correlation_misses_by_one_over_b():
    teacher = pairs.random_map(8, 4)
    found = correlation_loss(3 * teacher + 1, teacher, 1.0)
    assert found.item() == pytest.approx(log2(4 * (1 / 8) ** 2))


def test_the_mutual_term_vanishes_for_no_or_full_similarity():
    assert mutual_loss(torch.eye(3), torch.randn(3, 4)).item() == pytest.approx(0, abs=1e-7)
    assert mutual_loss(torch.randn(3, 2), torch.ones(3, 4)).item() == pytest.approx(0, abs=1e-6)
    # cosines 1 among students, 0 among teachers: the off-diagonal B (B - 1) / B^2 is left
    assert mutual_loss(torch.ones(3, 2), torch.eye(3)).item() == pytest.approx(6 / 9)


def test_a_dead_dimension_has_correlation_zero():
    student = pairs.random_map(4, 2).requires_grad_()
    teacher = torch.zeros(4, 2, dtype=torch.float64)
    value = correlation_loss(student, teacher, 1.0)
    value.backward()
    assert value.item() == 1  # log2(1 + 1)
    assert student.grad.isfinite().all()
    assert standard(teacher).tolist() == [[0, 0]] * 4


def test_the_terms_are_the_weighted_parts_of_the_projection():
    problem = pairs.Problem("itrd", correlation_weight=3.0, mutual_weight=5.0, alpha=1.5)
    student, teacher = (v.embedding for v in problem.views())
    terms, projected = problem.terms(), problem.modules(student)
    torch.testing.assert_close(terms["correlation"], 3 * correlation_loss(projected, teacher, 1.5))
    torch.testing.assert_close(terms["mutual"], 5 * mutual_loss(projected, teacher))


def test_equal_sizes_compare_samples_without_the_projection():
    problem = pairs.Problem("itrd", "cnn", "cnn")
    student, teacher = (v.embedding for v in problem.views())
    torch.testing.assert_close(problem.terms()["mutual"], mutual_loss(student, teacher))


def test_defaults_are_those_of_the_release_s_example():
    method = create("itrd", {})
    assert (method.correlation_weight, method.mutual_weight, method.alpha) == (2, 1, 1.01)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("itrd", student, teacher)
