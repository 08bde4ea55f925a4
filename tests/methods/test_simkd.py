import pytest
import torch
from torch.nn.functional import linear

from kdbench.registry import create
from tests.support import golden, naive, pairs


def build(student, teacher, head, factor):
    """Modules for two maps and the teacher's head (weight, bias)."""
    facts = [pairs.facts_of(m) for m in (student, teacher)]
    object.__setattr__(facts[1], "classify", lambda x: linear(x, *head))
    context = pairs.context(len(head[1]), None, *facts)
    return create("simkd", {"factor": factor}).build(context)


@golden.each("simkd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    maps = [inputs[f"{role}_feat"] for role in ("student", "teacher")]
    head = [inputs[f"w/cls_t.{part}"] for part in ("weight", "bias")]
    modules = build(*maps, head, hyper["factor"])
    stored = {k.removeprefix("w/"): v for k, v in inputs.items() if k.startswith("w/transfer.")}
    pairs.install(modules, stored, dtype)
    student, teacher = ({"features": m} for m in maps)
    terms, named = pairs.step("simkd", inputs, student, teacher, modules, feature_weight=hyper["beta"])
    projected, logits = modules(maps[0])
    golden.close(projected, case.arrays["projected"], "projected")
    golden.close(logits, case.arrays["pred_logits"], "pred_logits")
    golden.check(case, {**named, "mse": terms["feature"] / hyper["beta"]}, inputs)


def test_agrees_with_the_loop():
    """Through a projector that is a mere ReLU."""
    student, teacher = pairs.random_map(3, 2, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    head = pairs.random_map(4, 2, seed=2), pairs.random_map(4, seed=3)
    modules = build(student, teacher, head, 2)
    modules.transfer = torch.nn.ReLU()
    given = {"teacher_logits": pairs.random_map(3, 4, seed=4)}
    sides = ({"features": m} for m in (student, teacher))
    found, _ = pairs.step("simkd", given, *sides, modules, feature_weight=3.0)
    both = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    expected = 3 * naive.mean((max(0, s) - t) ** 2 for s, t in both)
    assert found["feature"].item() == pytest.approx(expected, rel=1e-10)
    pooled = [[naive.mean(c) for c in sample] for sample in student.relu().flatten(2).tolist()]
    logits = [
        [naive.dot(w, row) + b for w, b in zip(*map(torch.Tensor.tolist, head), strict=True)]
        for row in pooled
    ]
    torch.testing.assert_close(modules(student)[1], torch.tensor(logits, dtype=torch.float64))


def test_the_head_is_the_teacher_s_to_the_bit_and_does_not_learn():
    head = torch.randn(5, 6), torch.randn(5)
    modules = build(torch.randn(2, 4, 4, 4), torch.randn(2, 6, 4, 4), head, 2)
    assert torch.equal(modules.head.weight, head[0])
    assert torch.equal(modules.head.bias, head[1])
    assert not any(name.startswith("head") for name, _ in modules.named_parameters())


def test_a_perfect_projection_predicts_as_the_teacher():
    problem = pairs.Problem("simkd", "cnn", "cnn")
    problem.modules.transfer = torch.nn.Identity()
    student, _ = problem.views()
    predicted = problem.method.predict(student, problem.modules)
    torch.testing.assert_close(predicted, problem.teacher.classify(student.features.mean(dim=(2, 3))))


def test_the_projector_is_counted_in_the_student(lab):
    """Its parameters, and its multiply-accumulates on the last map; the teacher's head comes on top of its own."""
    results = lab.train("simkd", "kd")
    simkd, kd = results["simkd"].row, results["kd"].row
    data = results["kd"].cell.dataset
    teacher = lab.teacher.net(data).facts(data.size)
    s, t = 8, teacher.feature_channels
    m, places = t // 2, teacher.feature_size[0] ** 2
    assert simkd["macs"] - kd["macs"] == places * (s * m + 9 * m * m + m * t) + t * data.classes
    assert simkd["student_params"] - kd["student_params"] == s * m + 9 * m * m + m * t + 2 * (m + m + t)
    assert simkd["extra_params"] == 0


def test_labels_and_kl_act_on_the_prediction():
    problem = pairs.Problem("simkd", ce_weight=0.5, kd_weight=0.7)
    student, teacher = problem.views()
    terms, logits = problem.terms(), problem.method.predict(student, problem.modules).tolist()
    expected = 0.5 * naive.cross_entropy(logits, problem.target.tolist())
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-4)
    expected = 0.7 * naive.soft_kl(logits, teacher.logits.tolist(), 4.0)
    assert terms["kd"].item() == pytest.approx(expected, rel=1e-4)


def test_a_teacher_without_a_linear_head_is_skipped():
    assert "teacher's head" in pairs.Problem("simkd", "cnn", "vit").skipped


@pytest.mark.parametrize(("student", "teacher"), [p for p in pairs.PAIRS if p[1] != "vit"])
def test_on_pairs(student, teacher):
    pairs.check("simkd", student, teacher, on_logits=False)
