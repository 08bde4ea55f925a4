import pytest
import torch

from kdbench.method import StageFacts
from kdbench.methods._adapters import ConvReg
from kdbench.methods.fitnet import hint_loss
from tests.support import golden, naive, pairs


def regressor(student_shape, teacher_shape):
    facts = (StageFacts(shape[1], tuple(shape[2:])) for shape in (student_shape, teacher_shape))
    return ConvReg(*facts)


@golden.each("fitnet")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    modules = regressor(case.hyper["student_shape"], case.hyper["teacher_shape"])
    prefix = "w/conv_reg."
    stored = {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}
    pairs.install(modules, stored, dtype)
    weights = {"hint_weight": case.hyper["feat_weight"], "ce_weight": case.hyper["ce_weight"]}
    stages = ({"stages": (inputs[f"{role}_feat"],) * 2} for role in ("student", "teacher"))
    terms, named = pairs.step("fitnet", inputs, *stages, modules, **weights)
    golden.close(modules(inputs["student_feat"]), case.arrays["regressed"], "regressed")
    golden.check(case, {**named, "hint": terms["hint"] / weights["hint_weight"]}, inputs)


def test_agrees_with_the_loop():
    student, teacher = pairs.random_map(3, 2, 4, 4), pairs.random_map(3, 2, 4, 4, seed=1)
    modules = regressor((3, 2, 4, 4), (3, 2, 4, 4)).double()
    with torch.no_grad():
        modules.conv.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]])[:, :, None, None])
        modules.conv.bias.zero_()
    rows = student.permute(0, 2, 3, 1).flatten(0, 2).tolist()  # one row of channels a sample and place
    mixed = [[a + 2 * b, -a + 0.5 * b] for a, b in rows]
    columns = []
    for column in naive.transposed(mixed):
        centre = naive.mean(column)
        spread = (naive.mean((x - centre) ** 2 for x in column) + 1e-5) ** 0.5
        columns.append([max(0, (x - centre) / spread) for x in column])
    targets = naive.transposed(teacher.permute(0, 2, 3, 1).flatten(0, 2).tolist())
    both = zip(pairs.flat(columns), pairs.flat(targets), strict=True)
    assert hint_loss(modules(student), teacher).item() == pytest.approx(
        naive.mean((x - t) ** 2 for x, t in both)
    )


@pytest.mark.parametrize(
    ("student", "teacher", "kernel", "size"),
    [(8, 4, (3, 3), 4), (4, 8, (4, 4), 8), (7, 4, (4, 4), 4), (4, 4, (1, 1), 4), (4, 6, (3, 3), 4)],
)
def test_the_regressor_s_kernel_follows_the_sizes(student, teacher, kernel, size):
    modules = regressor((2, 3, student, student), (2, 5, teacher, teacher))
    assert modules.conv.kernel_size == kernel
    found = modules(torch.randn(2, 3, student, student))
    assert found.shape == (2, 5, size, size)
    assert hint_loss(found, torch.randn(2, 5, teacher, teacher)).isfinite()


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("fitnet", student, teacher)


def test_a_stage_that_is_not_there_is_skipped_with_the_reason():
    assert "the student has 3 stages" in pairs.Problem("fitnet", "cnn", "vit", stage=4).skipped
    assert "the teacher has 3 stages" in pairs.Problem("fitnet", "vit", "cnn", stage=4).skipped
