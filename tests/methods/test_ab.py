import pytest
import torch
from torch import nn

from kdbench.method import StageFacts
from kdbench.methods._adapters import ConvReg
from kdbench.methods.ab import boundary_loss
from tests.support import golden, pairs


@golden.each("ab")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    student, teacher = (pairs.stage_inputs(inputs, role) for role in ("student", "teacher"))
    modules = nn.ModuleList(nn.Identity() for _ in student)
    if "connector" in case.hyper:
        facts = [StageFacts(m[0].shape[1], tuple(m[0].shape[2:])) for m in (student, teacher)]
        modules = nn.ModuleList([ConvReg(*facts, relu=False)])
        pairs.install(modules[0], {k[2:]: v for k, v in inputs.items() if k.startswith("w/")}, dtype)
    stages = ({"preact": maps} for maps in (student, teacher))
    _, named = pairs.step("ab", inputs, *stages, modules, epoch=1.0, margin=case.hyper["margin"])
    last = len(student) - 1
    losses = [
        0.003 * 2.0 ** (i - last) * boundary_loss(m(s), t, case.hyper["margin"])
        for i, (m, s, t) in enumerate(zip(modules, student, teacher, strict=True))
    ]
    golden.close(torch.stack(losses), case.arrays["stage_losses"], "stage_losses")
    golden.check(case, named, inputs)


def test_agrees_with_the_loop():
    student, teacher = 2 * pairs.random_map(3, 2, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        if t > 0 and s <= 0.5:
            total += (s - 0.5) ** 2
        if t <= 0 and s > -0.5:
            total += (s + 0.5) ** 2
    assert boundary_loss(student, teacher, 0.5).item() == pytest.approx(total / 3, rel=1e-10)


def test_hand_values():
    # fires as it should, beyond the margin; fires as it should, inside; should fire; should not fire
    student, teacher = torch.tensor([[2.0, 0.5, -1.0, 1.0]]), torch.tensor([[0.1, 9.0, 3.0, -0.1]])
    assert boundary_loss(student, teacher, 1.0).item() == 0 + 0.25 + 4 + 4


def test_first_the_boundaries_then_the_labels():
    problem = pairs.Problem("ab")
    early, late = problem.terms(30.0), problem.terms(31.0)
    assert early["ab"] > 0
    assert late["ce"] > 0
    assert early["ce"] == early["kd"] == late["ab"] == 0
    sum(late.values()).backward()  # the connectors are left alone: no weight decay
    assert all(p.grad is None for p in problem.modules.parameters())
    early["ab"].backward()
    assert all(p.grad is not None for p in problem.modules.parameters())


def test_equal_shapes_need_no_connector():
    assert all(isinstance(m, nn.Identity) for m in pairs.Problem("ab", "cnn", "cnn").modules)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("ab", student, teacher)
