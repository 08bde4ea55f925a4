from math import e, exp, log

import pytest
import torch

from kdbench.methods.dcd import Embeddings, dcd_terms
from tests.support import golden, naive, pairs


def embeddings(inputs, size, dtype):
    sizes = [inputs[f"{role}_embedding"].shape[1] for role in ("student", "teacher")]
    facts = [pairs.facts_of(torch.zeros(1, width, 1, 1)) for width in sizes]
    modules = Embeddings(pairs.context(10, None, *facts), size, learned=True)
    stored = {
        f"{role}.{part}": inputs[f"w/embed_{role[0]}.{part}"]
        for role in ("student", "teacher")
        for part in ("weight", "bias")
    }
    pairs.install(modules, {**stored, "scale": inputs["w/params.tau"]}, dtype)
    return modules


@golden.each("dcd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    modules = embeddings(inputs, hyper["feat_dim"], dtype)
    given = ({"embedding": inputs[f"{role}_embedding"]} for role in ("student", "teacher"))
    params = {
        "dcd_weight": hyper["weight"],
        "consistency_weight": hyper["alpha"],
        "max_scale": hyper["max_tau"],
    }
    terms, named = pairs.step("dcd", inputs, *given, modules, **params)
    parts = {
        "contrastive": terms["contrast"] / hyper["weight"],
        "invariance": terms["consistency"] / (hyper["weight"] * hyper["alpha"]),
        "scale": inputs["w/params.tau"].exp().clamp(max=hyper["max_tau"]),
    }
    # the reference's bias changes nothing: added here, so that its gradient is compared too
    named["total"] = named["total"] + 0 * inputs["w/params.b"]
    golden.close(parts.pop("scale"), case.arrays["scale"], "scale")
    golden.check(case, {**named, **parts}, inputs)


def test_agrees_with_the_loop():
    scores = 3 * pairs.random_map(5, 5)
    rows = [naive.softmax(row) for row in scores.tolist()]
    columns = [naive.softmax(column) for column in naive.transposed(scores.tolist())]
    contrast, consistency = dcd_terms(scores)
    assert contrast.item() == pytest.approx(naive.mean(-log(row[i]) for i, row in enumerate(rows)), rel=1e-10)
    expected = naive.mean(naive.kl(c, r) for c, r in zip(columns, rows, strict=True))
    assert consistency.item() == pytest.approx(expected, rel=1e-10)


def test_level_scores():
    contrast, consistency = dcd_terms(torch.full((4, 4), 2.5))
    assert contrast.item() == pytest.approx(log(4))
    assert consistency.item() == 0


def test_symmetric_scores_are_consistent():
    scores = pairs.random_map(5, 5)
    assert dcd_terms(scores + scores.T)[1].item() == pytest.approx(0, abs=1e-12)
    assert dcd_terms(scores)[1].item() > 0.01


def test_the_scale_is_cut():
    problem = pairs.Problem("dcd")
    student, teacher = (views.embedding for views in problem.views())
    for start, scale in ((1.0, e), (2.0, exp(2.0)), (5.0, 10.0)):
        with torch.no_grad():
            problem.modules.scale.fill_(start)
        found = problem.modules.scores(student, teacher, 10.0)
        cosines = problem.modules.scores(student, teacher, 1e-6) / 1e-6
        torch.testing.assert_close(found, scale * cosines)
        assert cosines.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("learned", [True, False])
def test_the_scale_learns_where_it_may(learned):
    modules = pairs.Problem("dcd", learned_scale=learned).modules
    assert modules.scale.item() == 1
    assert ("scale" in dict(modules.named_parameters())) == learned


def test_weights():
    plain = pairs.Problem("dcd").terms()
    other = pairs.Problem("dcd", dcd_weight=3.0, consistency_weight=0.25).terms()
    assert other["contrast"].item() == pytest.approx(3 * plain["contrast"].item())
    assert other["consistency"].item() == pytest.approx(1.5 * plain["consistency"].item())


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("dcd", student, teacher)
