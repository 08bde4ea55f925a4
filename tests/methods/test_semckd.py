from math import exp

import pytest
import torch
from torch import nn

from kdbench.method import StageFacts, Views
from kdbench.methods.semckd import CrossAttention, Embed, attended_error, similarities
from tests.support import naive, pairs
from tests.support.standins import batch


def net(student=((2, 4), (3, 2)), teacher=((4, 4), (2, 4), (3, 2)), batch_size=8):
    facts = ([StageFacts(c, (n, n)) for c, n in shapes] for shapes in (student, teacher))
    return CrossAttention(*facts, batch_size).double()


def maps(shapes, count, seed):
    return [pairs.random_map(count, c, n, n, seed=seed + i) for i, (c, n) in enumerate(shapes)]


def loop_embed(module, row):
    first, _, second = module.layers
    hidden = [
        max(0, naive.dot(w, row) + b) for w, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)
    ]
    out = [
        naive.dot(w, hidden) + b for w, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)
    ]
    return [x / naive.dot(out, out) ** 0.5 for x in out]


@pytest.mark.parametrize("count", [8, 5])
def test_the_attention_agrees_with_the_loop(count):
    modules = net()
    student, teacher = maps([(2, 4), (3, 2)], count, 0), maps([(4, 4), (2, 4), (3, 2)], count, 10)
    sims = []
    for stage in (*student, *teacher):
        rows = stage.flatten(1).tolist()
        sims.append([[naive.dot(a, b) for b in rows] + [0.0] * (8 - count) for a in rows])
    found = modules.attention(student, teacher).tolist()
    for i in range(count):
        for s in range(2):
            query = loop_embed(modules.queries[s], sims[s][i])
            keys = [loop_embed(modules.keys[t], sims[2 + t][i]) for t in range(3)]
            powers = [exp(naive.dot(query, key)) for key in keys]
            assert found[i][s] == pytest.approx([p / sum(powers) for p in powers], rel=1e-10)


def test_the_errors_agree_with_the_loop():
    """With regressors that repeat the student's one channel."""
    modules = net([(1, 4), (1, 2)], [(1, 4), (1, 2)])
    modules.regressors = nn.ModuleList(nn.ModuleList(nn.Identity() for _ in range(2)) for _ in range(2))
    student, teacher = maps([(1, 4), (1, 2)], 3, 0), maps([(1, 4), (1, 2)], 3, 10)
    quarter = lambda p: [  # noqa: E731
        naive.mean(p[r + i][c + j] for i in (0, 1) for j in (0, 1)) for r in (0, 2) for c in (0, 2)
    ]
    found = modules.errors(student, teacher).tolist()
    for i in range(3):
        (big_s,), (big_t,) = student[0][i].tolist(), teacher[0][i].tolist()
        small_s, small_t = pairs.flat(student[1][i, 0].tolist()), pairs.flat(teacher[1][i, 0].tolist())
        expected = [
            [(pairs.flat(big_s), pairs.flat(big_t)), (quarter(big_s), small_t)],
            [(small_s, quarter(big_t)), (small_s, small_t)],
        ]
        for s in range(2):
            for t in range(2):
                gaps = zip(*expected[s][t], strict=True)
                assert found[i][s][t] == pytest.approx(naive.mean((a - b) ** 2 for a, b in gaps), rel=1e-10)


def test_hand_values():
    attention = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    errors = torch.tensor([[[3.0, 100.0], [2.0, 6.0]]])
    assert attended_error(attention, errors).item() == (3 + 4) / 2
    assert similarities(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), 3).tolist() == [[5, 6, 0], [6, 9, 0]]


def test_equal_keys_share_the_attention():
    modules = net(teacher=((4, 4), (4, 4)))
    modules.keys[1] = modules.keys[0]
    teacher = maps([(4, 4)], 8, 10) * 2
    found = modules.attention(maps([(2, 4), (3, 2)], 8, 0), teacher)
    torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_the_terms_are_the_weighted_parts():
    problem = pairs.Problem("semckd", kd_weight=0.5, sem_weight=7.0)
    student, teacher = problem.views()
    terms = problem.terms()
    expected = 0.5 * naive.soft_kl(student.logits.tolist(), teacher.logits.tolist(), 4)
    assert terms["kd"].item() == pytest.approx(expected, rel=1e-4)
    stages = (student.stages, teacher.stages)
    parts = problem.modules.attention(*stages), problem.modules.errors(*stages)
    assert terms["sem"].item() == pytest.approx(7 * attended_error(*parts).item(), rel=1e-5)
    modified = pairs.Problem("semckd", standardize=True).terms()
    rows = ([naive.standardized(r) for r in v.logits.tolist()] for v in (student, teacher))
    assert modified["kd"].item() == pytest.approx(naive.soft_kl(*rows, 4), rel=1e-4)


def test_a_short_batch_works():
    problem = pairs.Problem("semckd")
    rows = [Views({"weak": pick(v, 3)}, problem.method.needs) for v in problem.views()]
    terms = problem.method.loss(batch(problem.target[:3]), *rows, problem.modules)
    assert terms["sem"].isfinite()


def pick(views, count):
    outputs = views._outputs["weak"]
    return type(outputs)(outputs.logits[:count], stages=tuple(s[:count] for s in outputs.stages))


def test_the_embedding_has_unit_length():
    assert Embed(8, 2)(torch.randn(3, 8)).norm(dim=1).tolist() == pytest.approx([1, 1, 1])


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("semckd", student, teacher)
