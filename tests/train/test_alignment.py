"""Gradient alignment: the released rule in plain Python, steps of a small method, and dhkd in the harness."""

import copy

import pytest
import torch
from torch import nn

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Method, Needs, Outputs, Views
from kdbench.train.alignment import aligned
from kdbench.train.step import Optimisation, Step
from tests.support.loops import same

registry.load()


def released(*gradients):
    """DHKD's release on lists of numbers: each gradient is projected off the first where their product is negative."""
    first, merged = gradients[0], [0.0] * len(gradients[0])
    norm = sum(x * x for x in first)
    for gradient in gradients:
        product = sum(a * b for a, b in zip(gradient, first, strict=True))
        share = product / norm if product < 0 else 0.0
        merged = [m + g - share * f for m, g, f in zip(merged, gradient, first, strict=True)]
    return merged


def slopes(seed, reached):
    """Three parameters of 4, 2 and 3 numbers, None where ``reached`` says so; and all of them as one list."""
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, generator=draw, dtype=torch.float64) for n in (4, 2, 3)]
    kept = [part if is_reached else None for part, is_reached in zip(parts, reached, strict=True)]
    flat = [
        part if is_reached else torch.zeros_like(part)
        for part, is_reached in zip(parts, reached, strict=True)
    ]
    return kept, torch.cat(flat).tolist()


@pytest.mark.parametrize("reached", [(1, 1, 1), (1, 1, 0), (0, 1, 1), (1, 0, 0), (0, 0, 0)])
def test_the_released_rule(reached):
    """Over seeds where products are negative and positive; two and three gradients."""
    signs = set()
    for seed in range(8):
        (one, flat_one), (two, flat_two), (three, flat_three) = (
            slopes(100 * place + seed, part) for place, part in enumerate([(1, 0, 1), reached, (1, 1, 1)])
        )
        signs.add(sum(a * b for a, b in zip(flat_one, flat_two, strict=True)) < 0)
        for rest, flat in (([two], [flat_two]), ([two, three], [flat_two, flat_three])):
            found = aligned(one, rest)
            joined = [
                torch.zeros(n, dtype=torch.float64) if part is None else part
                for n, part in zip((4, 2, 3), found, strict=True)
            ]
            assert torch.cat(joined).tolist() == pytest.approx(released(flat_one, *flat), rel=1e-12)
    assert signs == ({True, False} if reached[0] or reached[2] else {False})


def test_nothing_is_projected_off_zeros():
    zeros, other = [torch.zeros(2), None], [torch.tensor([1.0, -2.0]), torch.ones(1)]
    assert same(aligned(zeros, [other]), other)


def test_a_parameter_that_nothing_reaches_has_no_gradient():
    assert aligned([torch.ones(1), None], [[torch.ones(1), None]])[1] is None


# --- the step ---


class Tug(Method):
    """Two terms that pull the student's number apart, and one that a module alone has."""

    name = "tug"
    needs = Needs(teacher=False)
    leading_term = "ce"

    def loss(self, batch, student, teacher, modules):
        logits = student.logits
        return {
            "ce": (logits - 1).square().sum(),
            "other": (modules(logits) + 4 * logits + 9).square().sum(),
            "quiet": torch.zeros(()),
        }


SETTINGS = Optimisation(lr=0.01, momentum=0.9, weight_decay=0.1)
IMAGES = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
BATCH = Batch(torch.zeros(4, dtype=torch.int64), 1.0, False, torch.tensor(0.0), torch.Generator())


def nets():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double(), nn.Linear(2, 2).double()


def train(step, student, count=4):
    return [step(BATCH, [(Views({"weak": Outputs(student(IMAGES))}, Tug.needs), None)]) for _ in range(count)]


def test_steps_are_sgd_on_the_released_gradient():
    (student, head), (other, twin) = nets(), nets()
    losses = train(Step(Tug(), student, head, SETTINGS), student)
    weights = [*other.parameters(), *twin.parameters()]
    optimizer = torch.optim.SGD(weights, 0.01, 0.9, weight_decay=0.1)
    bent = False
    for each in losses:
        logits = other(IMAGES)
        terms = [(logits - 1).square().sum(), (twin(logits) + 4 * logits + 9).square().sum()]
        assert each.total.item() == pytest.approx(sum(terms).item(), rel=1e-12)
        flat = []
        for term in terms:
            found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            parts = [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]
            flat.append(torch.cat([part.flatten() for part in parts]).tolist())
        merged = torch.tensor(released(*flat), dtype=torch.float64)
        bent |= not torch.allclose(merged, torch.tensor(flat, dtype=torch.float64).sum(dim=0))
        for weight, part in zip(weights, merged.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)
        optimizer.step()
    assert bent  # the terms work against each other in some step
    for mine, expected in zip([*student.parameters(), *head.parameters()], weights, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
        assert mine.grad is None


def test_a_restored_step_goes_on_to_the_bit():
    (student, head), (other, twin) = nets(), nets()
    step, again = Step(Tug(), student, head, SETTINGS), Step(Tug(), other, twin, SETTINGS)
    train(step, student)
    other.load_state_dict(student.state_dict())
    twin.load_state_dict(head.state_dict())
    again.load_state_dict(copy.deepcopy(step.state_dict()))
    for each, net in ((step, student), (again, other)):
        train(each, net)
    assert same([*student.parameters(), *head.parameters()], [*other.parameters(), *twin.parameters()])


def test_a_wrong_leading_term_is_named():
    class Wrong(Tug):
        name = "wrong"
        leading_term = "kd"

    student, head = nets()
    with pytest.raises(
        KdbenchError, match=r"wrong: leading_term is 'kd', but the terms are ce, other, quiet"
    ):
        train(Step(Wrong(), student, head, SETTINGS), student)


def test_alignment_and_momenta_exclude_each_other():
    class Both(Tug):
        name = "both"
        momentum_offsets = {"ce": 0.05}

    with pytest.raises(KdbenchError, match="both has both momentum offsets and a leading term"):
        Step(Both(), *nets(), SETTINGS)
    with pytest.raises(
        KdbenchError, match=r"dhkd\.momentum_gap cannot be set: the method aligns its gradients"
    ):
        registry.create("dhkd", {"align": True, "momentum_gap": 0.05})


# --- dhkd ---


def test_dhkd_aligned_is_another_run_and_the_default_the_same(lab):
    (plain,), (off,) = lab.cells("dhkd"), lab.cells("dhkd", sets={"dhkd": {"align": [False]}})
    (on,) = lab.cells("dhkd", sets={"dhkd": {"align": [True]}})
    assert plain.id == off.id != on.id
    assert on.variant == "align=true"
    first, second = (lab.run([cell])[str(cell)] for cell in (plain, on))
    assert first.row["status"] == second.row["status"] == "ok"
    assert not same(first.student, second.student)
