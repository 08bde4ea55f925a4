from math import sqrt

import pytest
import torch

from kdbench.methods.rkd import angles, distances
from tests.support import golden, naive, pairs


@golden.each("rkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    hyper = case.hyper
    params = {key: hyper[key] for key in ("distance_weight", "angle_weight", "ce_weight", "squared")}
    embeddings = ({"embedding": inputs[f"{role}_feat"]} for role in ("student", "teacher"))
    terms, named = pairs.step("rkd", inputs, *embeddings, **params)
    parts = {"distance": terms["distance"] / hyper["distance_weight"]}
    if hyper["angle_weight"]:
        parts["angle"] = terms["angle"] / hyper["angle_weight"]
    golden.check(case, {**named, **parts}, inputs)


def smooth(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def loop_distances(rows):
    apart = [[sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for b in rows] for a in rows]
    centre = naive.mean(d for i, row in enumerate(apart) for j, d in enumerate(row) if i != j)
    return [d / centre for row in apart for d in row]


def loop_angles(rows):
    found = []
    for middle in rows:
        for a in rows:
            for b in rows:
                u, v = ([x - m for x, m in zip(p, middle, strict=True)] for p in (a, b))
                found.append(naive.cosine(u, v) if any(u) and any(v) else 0.0)
    return found


def test_agrees_with_the_loop():
    student, teacher = 3 * pairs.random_map(4, 3), pairs.random_map(4, 5, seed=1)
    terms, _ = pairs.step("rkd", {}, {"embedding": student}, {"embedding": teacher})
    for name, loop, weight in (("distance", loop_distances, 25), ("angle", loop_angles, 50)):
        both = zip(loop(student.tolist()), loop(teacher.tolist()), strict=True)
        expected = weight * naive.mean(smooth(s - t) for s, t in both)
        assert terms[name].item() == pytest.approx(expected, rel=1e-7), name


def test_a_right_triangle():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    assert distances(corners)[0].tolist() == pytest.approx([0, 3 / 4, 4 / 4])
    assert distances(corners, squared=True)[0].tolist() == pytest.approx([0, 27 / 50, 48 / 50])
    assert angles(corners)[0, 1].tolist() == pytest.approx([0, 1, 0])
    assert angles(corners)[1, 0].tolist() == pytest.approx([1, 0, 3 / 5])


def test_moving_turning_and_scaling_changes_nothing():
    points = pairs.random_map(5, 3)
    turn, _ = torch.linalg.qr(pairs.random_map(3, 3, seed=1))
    moved = 4 * points @ turn + 1
    torch.testing.assert_close(distances(moved), distances(points))
    torch.testing.assert_close(angles(moved), angles(points))


def test_twin_samples_leave_a_moderate_gradient():
    points = pairs.random_map(5, 3)
    points[1] = points[0]
    points.requires_grad_()
    terms, _ = pairs.step("rkd", {}, {"embedding": points}, {"embedding": pairs.random_map(5, 3, seed=1)})
    sum(terms.values()).backward()
    assert points.grad.abs().max() < 1e3


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("rkd", student, teacher)
