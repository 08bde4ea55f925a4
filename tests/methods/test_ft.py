import pytest
import torch

from kdbench.methods.ft import factor_loss, paper_loss
from tests.support import golden, naive, pairs


@golden.each("ft")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    found = factor_loss(inputs["student_factor"], inputs["teacher_factor"], hyper["p1"], hyper["p2"])
    golden.check(case, {"ft": found, "total": hyper["beta"] * found}, inputs)


def test_the_code_form_agrees_with_the_loop():
    factors = pairs.random_map(3, 4, 2, 2), pairs.random_map(3, 4, 2, 2, seed=1)
    heats = []
    for factor in factors:
        for sample in factor.flatten(2).tolist():
            heat = [naive.mean(x * x for x in place) for place in naive.transposed(sample)]
            heats.append([x / naive.dot(heat, heat) ** 0.5 for x in heat])
    both = zip(pairs.flat(heats[:3]), pairs.flat(heats[3:]), strict=True)
    assert factor_loss(*factors).item() == pytest.approx(naive.mean(abs(a - b) for a, b in both), rel=1e-10)


def test_the_paper_form_agrees_with_the_loop():
    factors = pairs.random_map(3, 4, 2, 2), pairs.random_map(3, 4, 2, 2, seed=1)
    rows = [factor.flatten(1).tolist() for factor in factors]
    units = [[[x / naive.dot(row, row) ** 0.5 for x in row] for row in side] for side in rows]
    both = zip(*map(pairs.flat, units), strict=True)
    assert paper_loss(*factors).item() == pytest.approx(naive.mean(abs(a - b) for a, b in both), rel=1e-10)


def test_only_the_paper_form_sees_the_order_of_channels():
    factor = pairs.random_map(3, 4, 2, 2)
    assert factor_loss(factor, -factor[:, [1, 0, 3, 2]]).item() == pytest.approx(0, abs=1e-15)
    assert paper_loss(factor, factor[:, [1, 0, 3, 2]]) > 0.01
    assert paper_loss(factor, 7 * factor).item() == pytest.approx(0, abs=1e-15)


def test_the_paraphraser_learns_first_and_is_frozen_then():
    problem = pairs.Problem("ft")
    own = {n: p for n, p in problem.modules.named_parameters() if not n.startswith("translator")}
    early, late = problem.terms(30.0), problem.terms(31.0)
    assert early["paraphrase"] > 0
    assert early["ft"] == late["paraphrase"] == 0
    for term, learned in ((early["paraphrase"], True), (late["ft"], False)):
        problem.modules.zero_grad()
        term.backward(retain_graph=True)
        assert all((p.grad is not None) == learned for p in own.values())


def test_the_paraphrase_is_the_autoencoder_s_error():
    problem = pairs.Problem("ft", paraphrase_weight=3.0)
    target = problem.views()[1].stages[-1]
    with torch.no_grad():
        copied = problem.modules["decoder"](problem.modules["encoder"](target))
    expected = 3 * (copied - target).square().mean()
    torch.testing.assert_close(problem.terms(1.0)["paraphrase"].detach(), expected)
    assert problem.modules["encoder"](target).shape[1] == target.shape[1] // 2


@pairs.on_pairs
@pytest.mark.parametrize("form", ["code", "paper"])
def test_on_pairs(student, teacher, form):
    pairs.check("ft", student, teacher, form=form)
