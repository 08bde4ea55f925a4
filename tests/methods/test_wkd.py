from math import cos, exp, log, pi

import pytest
import torch

from kdbench.methods.wkd import ClassCosts, class_costs, late_decay, sinkhorn
from kdbench.registry import create
from tests.support import naive
from tests.support.standins import batch, context, logits, step, views

TARGET = [0, 3, 1, 1, 2]


def loop_sinkhorn(p, q, cost, reg, rounds):
    n = range(len(p))
    kernel = [[exp(-cost[i][j] / reg) for j in n] for i in n]
    u = [1 / len(p)] * len(p)
    for _ in range(rounds):
        v = [q[j] / sum(u[i] * kernel[i][j] for i in n) for j in n]
        u = [p[i] / sum(kernel[i][j] * v[j] for j in n) for i in n]
    return sum(u[i] * kernel[i][j] * v[j] * cost[i][j] for i in n for j in n)


def costs(count):
    """A symmetric matrix in [0, 1) with a zero diagonal."""
    raw = torch.rand(count, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((raw + raw.T) / 2).fill_diagonal_(0.0)


def test_agrees_with_the_loop():
    student, teacher, cost = logits(5, 4, 0), logits(5, 4, 1), costs(4)
    modules = ClassCosts(4).double()
    modules.cost.copy_(cost)
    found = step("wkd", TARGET, (student,), (teacher,), epoch=100.0, modules=modules)
    hits, moved = [], []
    for s, t, y in zip(student.tolist(), teacher.tolist(), TARGET, strict=True):
        hits.append(-naive.softmax(t)[y] * log(naive.softmax(s)[y]))
        p, q = (naive.softmax(naive.without(row, y), 8) for row in (s, t))
        among = [naive.without(row, y) for row in naive.without(cost.tolist(), y)]
        moved.append(loop_sinkhorn(p, q, among, 0.05, 10))
    assert found["target"].item() == pytest.approx(naive.mean(hits), rel=1e-10)
    assert found["wasserstein"].item() == pytest.approx(600 * naive.mean(moved), rel=1e-10)


def test_equal_costs_make_it_the_total_variation():
    # every move costs 1: what must move is the mass that the two do not share
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    q = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    cost = 1 - torch.eye(3, dtype=torch.float64)
    assert sinkhorn(p, q, cost, 0.02, 500).item() == pytest.approx(0.3, abs=1e-3)
    assert sinkhorn(p, p, cost, 0.02, 500).item() == pytest.approx(0, abs=1e-3)


def test_moving_to_an_alike_class_is_cheaper():
    cost = torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.0, 0.9], [0.9, 0.9, 0.0]], dtype=torch.float64)
    sure = torch.eye(3, dtype=torch.float64)
    near, far = (sinkhorn(sure[:1], sure[c : c + 1], cost, 0.05, 10).item() for c in (1, 2))
    assert (near, far) == pytest.approx((0.1, 0.9))


def test_class_costs_by_hand():
    x, y = torch.tensor([1.0, -1, 0, 0]), torch.tensor([0.0, 0, 1, -1])
    kernels = torch.stack([torch.outer(v, v) for v in (x, 3 * x, y)] + [torch.zeros(4, 4)])
    far = 1 - exp(-2)
    expected = [[0, 0, far, far], [0, 0, far, far], [far, far, 0, far], [far, far, far, 0]]
    torch.testing.assert_close(class_costs(kernels, 2.0), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_prepare_measures_the_teacher_s_classes():
    method = create("wkd", {})
    embedding = logits(12, 6, 3)
    labels = torch.arange(12) % 4
    modules = ClassCosts(4).double()
    seen = [
        (batch(part), views(method, logits(len(part), 4), embedding=rows))
        for part, rows in zip(labels.split(5), embedding.split(5), strict=True)
    ]
    method.prepare(context(num_classes=4), seen, modules)
    centred = embedding - embedding.mean(1, keepdim=True)
    for c in range(4):
        for d in range(4):
            # <X^T X, Z^T Z> is the sum of squared products over all pairs of samples
            def product(a, b):
                return sum(
                    naive.dot(i, j) ** 2
                    for i in centred[labels == a].tolist()
                    for j in centred[labels == b].tolist()
                )

            cka = product(c, d) / (product(c, c) * product(d, d)) ** 0.5
            assert modules.cost[c, d].item() == pytest.approx(1 - exp(-(1 - cka)), abs=1e-12)


def test_the_weight_decays_late():
    assert [late_decay(epoch, 150, 240) for epoch in (1, 150, 195, 240, 300)] == pytest.approx(
        [1, 1, 0.5, 0, 0]
    )
    assert late_decay(165, 150, 240) == pytest.approx(0.5 * (1 + cos(pi / 6)))
