from math import exp, log

import pytest
import torch

from kdbench.methods.dhkd import binary_kl
from kdbench.registry import create
from tests.support import golden
from tests.support.standins import batch, context, logits, views, with_totals


def step(student, second, teacher, target, **params):
    """The terms with a second head that hands its embedding through."""
    method = create("dhkd", params)
    seen = views(method, student, embedding=second)
    return method.loss(batch(target), seen, views(method, teacher), torch.nn.Identity())


def terms(case, inputs):
    hyper = case.hyper
    params = {"temperature": hyper["temperature"], "alpha": hyper["alpha"], "ce_weight": hyper["gamma_ce"]}
    tensors = (inputs[f"{name}_logits"] for name in ("student", "student_aux", "teacher"))
    return with_totals(step(*tensors, inputs["target"], form="code", **params))


@golden.each("dhkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    found = terms(case, inputs)
    for name in ("ce", "total", "total_with_ce"):
        golden.close(found[name], case.arrays[name], f"{case.name}: {name}")
    for term, name in (("total", "student_aux_logits"), ("total_with_ce", "student_logits")):
        expected = case.arrays.get(f"grad_{term}__{name}")
        if expected is not None:
            (gradient,) = torch.autograd.grad(found[term], inputs[name], retain_graph=True)
            if dtype == torch.float64:
                # the reference's logarithm of 1 - (1 - 1e-8) has lost half its digits at the bound
                torch.testing.assert_close(gradient, torch.from_numpy(expected), rtol=1e-6, atol=1e-12)
            else:
                golden.close(gradient, expected, f"{case.name}: {term} {name}", gradient=True)


def loop(student, teacher, temperature):
    total = 0.0
    for s_row, t_row in zip(student, teacher, strict=True):
        for s, t in zip(s_row, t_row, strict=True):
            p = 1 / (1 + exp(-(s - t) / temperature))
            total += 0.5 * log(0.5 / p) + 0.5 * log(0.5 / (1 - p))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_agrees_with_the_loop(form):
    student, second, teacher = (logits(5, 4, seed) for seed in range(3))
    found = step(student, second, teacher, [0, 3, 1, 1, 2], form=form, alpha=0.3)["binary"]
    assert found.item() == pytest.approx(0.3 * loop(second.tolist(), teacher.tolist(), 2), rel=1e-10)


def test_zero_at_equal_logits_and_linear_far_away():
    teacher = logits(1, 3, 0)
    assert binary_kl(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-15)
    # softplus(x) + softplus(-x) -> |x|: T^2 (|gap|/(2T) - log 2) a class, above the bound of the code form
    assert binary_kl(teacher + 100, teacher, 2.0).item() == pytest.approx(3 * 4 * (25 - log(2)))
    assert binary_kl(teacher + 100, teacher, 2.0, clamp=True).item() == pytest.approx(
        3 * 4 * (9.21034 - log(2))
    )


def test_float32_stays_finite_where_the_released_clamp_fails():
    teacher = torch.zeros(1, 3)
    assert binary_kl(teacher + 1e4, teacher, 2.0).isfinite()


@pytest.mark.parametrize(("head", "count"), [("mlp", 6 * 200 + 2 * 200 + 200 * 5 + 5), ("linear", 6 * 5 + 5)])
def test_the_second_head_s_parameters(head, count):
    built = create("dhkd", {"head": head}).build(context(num_classes=5))
    assert sum(p.numel() for p in built.parameters()) == count
