from math import log

import pytest
import torch

from kdbench.losses import soft_kl
from kdbench.method import StageFacts
from kdbench.methods.ofa import Merge, Tokens, ofa_loss, projector
from kdbench.registry import create
from tests.support import naive, pairs
from tests.support.standins import logits

TARGET = [0, 3, 1, 1, 2]


@pytest.mark.parametrize("eps", [1.0, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_agrees_with_the_loop(eps, temperature):
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    total = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), TARGET, strict=True):
        p, q = naive.softmax(t, temperature), naive.softmax(s, temperature)
        total.append(-sum(((p[c] + (c == y)) ** eps - (c == y)) * log(q[c]) for c in range(4)))
    found = ofa_loss(student, teacher, torch.tensor(TARGET), eps, temperature)
    assert found.item() == pytest.approx(naive.mean(total), rel=1e-10)


def test_at_eps_one_it_is_kl_and_the_teacher_s_entropy():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    entropy = naive.mean(-sum(p * log(p) for p in naive.softmax(t)) for t in teacher.tolist())
    found = ofa_loss(student, teacher, torch.tensor(TARGET), 1.0, 1.0)
    assert found.item() == pytest.approx(soft_kl(student, teacher, 1.0).item() + entropy)


def test_eps_lifts_the_right_class_of_a_sure_teacher():
    student = torch.zeros(1, 2, dtype=torch.float64)
    sure = torch.tensor([[100.0, 0.0]], dtype=torch.float64)
    # ((1 + 1)^eps - 1) log 2 where the teacher is right; 1 log 2 + (1^eps - 1) log 2 where it is wrong
    for target, expected in ((0, 2**1.5 - 1), (1, 1)):
        found = ofa_loss(student, sure, torch.tensor([target]), 1.5, 1.0)
        assert found.item() == pytest.approx(expected * log(2))


def test_the_terms_are_the_weighted_parts():
    problem = pairs.Problem("ofa", stage_weight=3.0, logit_weight=5.0, eps=1.3, temperature=2.0)
    student, teacher = problem.views()
    terms = problem.terms()
    heads = [project(x) for project, x in zip(problem.modules, student.stages, strict=True)]
    losses = [ofa_loss(z, teacher.logits, problem.target, 1.3, 2.0) for z in (*heads, student.logits)]
    assert terms["stage"].item() == pytest.approx(3 * sum(losses[:-1]).item(), rel=1e-4)
    assert terms["logit"].item() == pytest.approx(5 * losses[-1].item(), rel=1e-4)


def test_a_pyramid_halves_once_for_every_stage_that_is_left():
    facts = pairs.Model("cnn", 0).facts()
    for stage, (channels, size) in enumerate(pairs.STAGES["cnn"]):
        *layers, _, _, head = projector(facts, stage, 12, 5)
        maps = torch.randn(2, channels, size, size)
        for layer in layers:
            maps = layer(maps)
        assert maps.shape == (2, 12, 2, 2)
        assert head.in_features == 12


@pytest.mark.parametrize(("grid", "merges"), [(7, 0), (8, 0), (13, 0), (14, 1), (16, 1), (28, 2)])
def test_tokens_merge_to_about_seven_a_side(grid, merges):
    tokens = Tokens(8, grid, 2, 5)
    assert len(tokens.merge) == merges
    assert len(tokens.blocks) == 2
    assert tokens(torch.randn(2, 8, grid, grid)).shape == (2, 5)


def test_merging_keeps_neighbours_together():
    merge = Merge(1, 1, last=True)
    with torch.no_grad():
        merge.layers[0] = torch.nn.Identity()
        merge.layers[1].weight.fill_(1.0)
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert merge(maps).flatten().tolist() == [
        0 + 1 + 4 + 5,
        2 + 3 + 6 + 7,
        8 + 9 + 12 + 13,
        10 + 11 + 14 + 15,
    ]


def test_channels_that_heads_cannot_share_are_skipped():
    context = pairs.Problem("ofa", "vit", "cnn").context
    object.__setattr__(context.student, "stages", (StageFacts(6, (4, 4)),) * 4)
    assert "attention heads" in create("ofa", {}).skip(context)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    problem = pairs.check("ofa", student, teacher)
    assert isinstance(problem.modules[0], Tokens) == (student == "vit")
