from math import sqrt

import pytest
import torch
from torch import nn

from kdbench.methods.norm import many_to_one, scaled_logits, share
from tests.support import naive, pairs


def scaled(row, scale):
    mean = naive.mean(row)
    std = sqrt(naive.mean((x - mean) ** 2 for x in row) + 1e-7)
    return [scale * (x - mean) / std for x in row]


def test_the_matching_agrees_with_the_loop():
    expanded, teacher = pairs.random_map(3, 6, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    total = 0.0
    for segment in (0, 2, 4):
        one = expanded[:, segment : segment + 2].flatten().tolist()
        total += naive.mean((s - t) ** 2 for s, t in zip(one, teacher.flatten().tolist(), strict=True))
    assert many_to_one(expanded, teacher).item() == pytest.approx(total, rel=1e-10)


def test_the_logits_agree_with_the_loop():
    logits = pairs.random_map(4, 5)
    expected = [scaled(row, 2.5) for row in logits.tolist()]
    torch.testing.assert_close(scaled_logits(logits, 2.5), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("residual", [True, False])
def test_all_terms_agree_with_the_loop(residual):
    params = {"norm_weight": 3.0, "ce_weight": 0.5, "kd_weight": 0.7, "logit_scale": 2.0, "copies": 3}
    problem = pairs.Problem("norm", "cnn", "cnn", residual=residual, **params)
    student, teacher = problem.views()
    terms = problem.terms(epoch=15.0)
    with torch.no_grad():
        expanded = problem.modules.expand(student.features)
        maps = problem.modules.contract(expanded)
        maps = student.features + maps if residual else maps
        pooled = [[naive.mean(channel) for channel in sample] for sample in maps.flatten(2).tolist()]
        weight, bias = problem.student.weight.tolist(), problem.student.bias.tolist()
    raw = [[naive.dot(w, row) + b for w, b in zip(weight, bias, strict=True)] for row in pooled]
    logits = [scaled(row, 2.0) for row in raw]
    others = [scaled(row, 2.0) for row in teacher.logits.tolist()]
    expected = 0.5 * naive.cross_entropy(logits, problem.target.tolist())
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["kd"].item() == pytest.approx(0.7 * naive.soft_kl(logits, others, 4.0), rel=1e-4)
    matching = 0.5 * 3.0 * many_to_one(expanded, teacher.features).item()
    assert terms["norm"].item() == pytest.approx(matching, rel=1e-5)
    torch.testing.assert_close(
        problem.method.predict(student, problem.modules), torch.tensor(logits), rtol=1e-4, atol=1e-4
    )


def test_hand_values():
    """Segments at distance 0, 1 and 2 of a teacher of two channels."""
    teacher = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    expanded = torch.cat([teacher, teacher + 1, teacher - 2], dim=1)
    assert many_to_one(expanded, teacher).item() == 0 + 1 + 4


def test_the_teacher_s_larger_map_is_max_pooled():
    teacher = torch.tensor([[1.0, 5.0], [2.0, -7.0]]).view(1, 1, 2, 2)
    assert many_to_one(torch.full((1, 2, 1, 1), 5.0), teacher).item() == 0


def test_the_student_s_larger_map_is_average_pooled():
    student = torch.tensor([[1.0, 5.0], [2.0, -8.0]]).view(1, 1, 2, 2)
    assert many_to_one(student, torch.full((1, 1, 1, 1), 2.0)).item() == 4


def test_the_share_changes_after_four_epochs():
    shares = [share(epoch) for epoch in range(1, 241)]
    assert shares == [0.1] * 10 + [0.5] * 10 + [1.0] * 160 + [0.5] * 30 + [0.1] * 30
    assert (share(10.5), share(400.0)) == (0.5, 0.1)


def test_the_order_of_the_segments_does_not_matter():
    expanded, teacher = pairs.random_map(3, 6, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    turned = expanded.unflatten(1, (3, 2)).flip(1).flatten(1, 2)
    torch.testing.assert_close(many_to_one(turned, teacher), many_to_one(expanded, teacher))


@pytest.mark.parametrize("residual", [True, False])
def test_it_can_be_merged_into_the_head(residual):
    """After training it is linear: of the mean over space it makes what it makes of the map."""
    problem = pairs.Problem("norm", "cnn", "cnn", residual=residual)
    problem.terms()
    problem.modules.eval()
    features = problem.views()[0].features
    whole = problem.modules(features)[1].mean(dim=(2, 3))
    pooled = problem.modules(features.mean(dim=(2, 3), keepdim=True))[1].flatten(1)
    torch.testing.assert_close(pooled, whole)


def test_without_the_module_the_head_classifies_the_student_s_own_map():
    problem = pairs.Problem("norm", "cnn", "cnn")
    nn.init.zeros_(problem.modules.contract[1].weight)
    student, _ = problem.views()
    predicted = problem.method.predict(student, problem.modules)
    torch.testing.assert_close(predicted, scaled_logits(student.logits, 2.5))


def test_the_module_is_counted_in_the_student(lab):
    results = lab.train("norm", "kd")
    norm, kd = results["norm"].row, results["kd"].row
    data = results["kd"].cell.dataset
    teacher = lab.teacher.net(data).facts(data.size)
    s, wide = 8, 8 * teacher.feature_channels
    assert norm["student_params"] - kd["student_params"] == 2 * s * wide + 2 * (wide + s)
    assert norm["extra_params"] == 0


def test_a_student_without_a_linear_head_is_skipped():
    assert "student's head" in pairs.Problem("norm", "vit", "wide").skipped


@pytest.mark.parametrize(("student", "teacher"), [p for p in pairs.PAIRS if p[0] != "vit"])
def test_on_pairs(student, teacher):
    pairs.check("norm", student, teacher, on_logits=False)
