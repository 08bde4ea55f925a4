import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from kdbench.registry import create
from tests.support import golden, naive, pairs


def step(inputs, modules, weight, **params):
    """The teacher's head is the stored linear layer on the spatial mean of its map."""
    head = [inputs[f"w/teacher_fc.{part}"] for part in ("weight", "bias")]
    embedding = inputs["teacher_feat"].mean(dim=(2, 3))
    classify = lambda x: linear(x, *head)  # noqa: E731
    given = {**inputs, "teacher_logits": classify(embedding)}
    student, teacher = {"features": inputs["student_feat"]}, {"embedding": embedding, "classify": classify}
    return pairs.step("srrl", given, student, teacher, modules, regression_weight=weight, **params)


@golden.each("srrl")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    facts = [pairs.facts_of(inputs[f"{role}_feat"]) for role in ("student", "teacher")]
    modules = create("srrl", {}).build(pairs.context(10, None, *facts))
    prefix = "w/Connectors."
    stored = {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}
    pairs.install(modules, stored, dtype)
    terms, named = step(inputs, modules, case.hyper["weight"])
    parts = {"fm": terms["feature"], "sr": terms["regression"] / case.hyper["weight"]}
    golden.check(case, {**named, **parts}, inputs)


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 2, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    head = {
        "w/teacher_fc.weight": pairs.random_map(4, 2, seed=2),
        "w/teacher_fc.bias": pairs.random_map(4, seed=3),
    }
    found, _ = step(
        {"student_feat": student, "teacher_feat": teacher, **head}, nn.ReLU(), 2.0, feature_weight=3.0
    )
    pooled = [
        [[naive.mean(channel) for channel in sample] for sample in maps.flatten(2).tolist()]
        for maps in (student.relu(), teacher)
    ]
    weight, bias = (head[f"w/teacher_fc.{part}"].tolist() for part in ("weight", "bias"))
    logits = [
        [[naive.dot(w, row) + b for w, b in zip(weight, bias, strict=True)] for row in rows]
        for rows in pooled
    ]
    for name, factor, (s, t) in (("feature", 3, pooled), ("regression", 2, logits)):
        gaps = zip(pairs.flat(s), pairs.flat(t), strict=True)
        assert found[name].item() == pytest.approx(
            factor * naive.mean((a - b) ** 2 for a, b in gaps), rel=1e-10
        )


def test_the_regression_is_the_head_s_difference_of_features():
    inputs = {
        "student_feat": pairs.random_map(3, 2, 1, 1).abs(),
        "teacher_feat": pairs.random_map(3, 2, 1, 1, seed=1),
        "w/teacher_fc.weight": 2 * torch.eye(2, dtype=torch.float64),
        "w/teacher_fc.bias": torch.ones(2, dtype=torch.float64),
    }
    found, _ = step(inputs, nn.ReLU(), 1.0)
    torch.testing.assert_close(found["regression"], 4 * found["feature"])


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("srrl", student, teacher)
