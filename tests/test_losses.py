"""The shared formulas against hand values and plain Python."""

from math import exp, log

import pytest
import torch

from kdbench import losses


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2)]


def rows(logits):
    """Probabilities in plain Python."""
    return [[exp(z) / sum(map(exp, row)) for z in row] for row in logits.tolist()]


def test_kl_and_soft_cross_entropy(pair):
    student, teacher = (z.log_softmax(dim=1) for z in pair)
    for i, (q, p) in enumerate(zip(*map(rows, pair), strict=True)):
        cross = -sum(a * log(b) for a, b in zip(p, q, strict=True))
        entropy = -sum(a * log(a) for a in p)
        assert losses.soft_cross_entropy(student, teacher)[i].item() == pytest.approx(cross, rel=1e-12)
        assert losses.kl(student, teacher)[i].item() == pytest.approx(cross - entropy, rel=1e-12)


def test_kl_ignores_classes_without_teacher_probability():
    student = torch.tensor([[0.0, 0.0]], dtype=torch.float64).log_softmax(1).requires_grad_()
    teacher = torch.tensor([[0.0, -1e4]], dtype=torch.float64).log_softmax(1).requires_grad_()
    value = losses.kl(student, teacher).sum()
    value.backward()
    assert value.item() == pytest.approx(log(2))
    assert student.grad.isfinite().all()
    assert teacher.grad.isfinite().all()


def test_drop_target_keeps_the_order():
    values = torch.arange(12).view(3, 4)
    assert losses.drop_target(values, torch.tensor([0, 2, 3])).tolist() == [[1, 2, 3], [4, 5, 7], [8, 9, 10]]


def test_split_target(pair):
    target = torch.tensor([0, 4, 2, 2])
    binary, rest = losses.split_target(pair[0], target)
    for i, (p, y) in enumerate(zip(rows(pair[0]), target.tolist(), strict=True)):
        assert binary[i].exp().tolist() == pytest.approx([p[y], 1 - p[y]], rel=1e-10)
        others = [q / (1 - p[y]) for c, q in enumerate(p) if c != y]
        assert rest[i].exp().tolist() == pytest.approx(others, rel=1e-10)


def test_split_target_of_a_certain_prediction_is_finite():
    binary, _ = losses.split_target(torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([0]))
    assert binary[0].tolist() == pytest.approx([0, log(2) - 1e4])


def test_standardize(pair):
    z = losses.standardize(pair[0])
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(z.std(dim=1), torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0)


def test_standardize_of_a_constant_row_is_zero_without_gradient():
    logits = torch.tensor([[2.0, 2.0], [0.0, 1.0]], requires_grad=True)
    losses.standardize(logits)[:, 0].sum().backward()
    assert losses.standardize(logits)[0].tolist() == [0, 0]
    assert logits.grad[0].tolist() == [0, 0]


def test_soft_kl_is_t_squared_kl_of_divided_logits(pair):
    student, teacher = ((z / 4).log_softmax(dim=1) for z in pair)
    expected = 16 * losses.kl(student, teacher).mean()
    torch.testing.assert_close(losses.soft_kl(*pair, 4.0), expected)


def test_gram():
    matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert losses.gram(matrix).tolist() == [[5, 6], [6, 9]]


def test_warmup():
    assert [losses.warmup(epoch, 20) for epoch in (1, 10, 20, 240)] == [0.05, 0.5, 1, 1]
    assert losses.warmup(1, 0) == 1


def test_scale_gradient_leaves_the_value():
    value = torch.tensor(3.0, requires_grad=True)
    scaled = losses.scale_gradient(value, -0.5)
    (gradient,) = torch.autograd.grad(scaled**2, value)
    assert scaled.item() == 3
    assert gradient.item() == -0.5 * 6
