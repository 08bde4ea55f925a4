import pytest
import torch

from tests.support import golden, naive
from tests.support.standins import logits, step, with_totals

TARGET = [0, 3, 1, 1, 2, 2]
GROUPS = ("loss_kd", "loss_bc", "loss_cc")


def terms(case, inputs):
    hyper = case.hyper
    params = {"temperature": hyper["base_temperature"], "standardize": hyper["logit_stand"], "form": "code"}
    params |= {key: hyper[key] for key in ("ce_weight", "kd_weight")}
    student, teacher = ([inputs[f"{model}_logits_{v}"] for v in ("weak", "strong")] for model in MODELS)
    found = step("mlkd", inputs["target"], student, teacher, **params)
    return with_totals(found, loss_kd="instance", loss_bc="batch", loss_cc="class")


MODELS = ("student", "teacher")


@golden.each("mlkd", "lskd_mlkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    golden.check(case, terms(case, inputs), inputs)


def loop_gram(rows):
    return [[naive.dot(a, b) for b in rows] for a in rows]


def loop_gap(student, teacher):
    grams = (loop_gram(student), loop_gram(teacher))
    return sum((a - b) ** 2 for r, q in zip(*grams, strict=True) for a, b in zip(r, q, strict=True)) / len(
        student
    )


def loop_levels(student, teacher, t):
    """(batch, class) at one temperature."""
    s, q = ([naive.softmax(row, t) for row in x] for x in (student, teacher))
    return loop_gap(s, q), loop_gap(naive.transposed(s), naive.transposed(q))


@pytest.fixture
def pairs():
    return [(logits(6, 4, 2 * v), logits(6, 4, 2 * v + 1)) for v in range(2)]  # weak, strong


@pytest.mark.parametrize("standardize", [False, True])
def test_paper_form_agrees_with_the_loop(pairs, standardize):
    student, teacher = zip(*pairs, strict=True)
    found = step("mlkd", TARGET, student, teacher, standardize=standardize)
    instance = batch = classes = 0.0
    for s, t in pairs:
        s, t = s.tolist(), t.tolist()
        z = [[naive.standardized(row) for row in x] if standardize else x for x in (s, t)]
        for temperature in (2, 3, 4, 5, 6):
            instance += naive.soft_kl(*z, temperature)
            of_batch, of_class = loop_levels(s, t, temperature)
            batch, classes = batch + of_batch, classes + of_class
    assert found["instance"].item() == pytest.approx(0.9 * instance, rel=1e-7)
    assert found["batch"].item() == pytest.approx(0.9 * batch, rel=1e-10)
    assert found["class"].item() == pytest.approx(0.9 * classes, rel=1e-10)
    ce = sum(naive.cross_entropy(s.tolist(), TARGET) for s in student)
    assert found["ce"].item() == pytest.approx(0.1 * ce, rel=1e-10)


def test_code_form_agrees_with_the_loop(pairs):
    student, teacher = zip(*pairs, strict=True)
    found = step("mlkd", TARGET, student, teacher, form="code")
    (ws, wt), (ss, st) = [(s.tolist(), t.tolist()) for s, t in pairs]
    weak = {t: naive.soft_kl(ws, wt, t) for t in (2, 3, 4, 5, 6)}
    strong = {t: naive.soft_kl(ss, st, t) for t in (3, 4, 5)}
    # without ties half of 6 samples and half of 4 classes lie below the median
    instance = 0.5 * sum(weak.values()) + sum(strong.values()) + weak[2] + weak[6]
    levels = [loop_levels(ws, wt, t) for t in (2, 3, 4, 5, 6)]
    assert found["instance"].item() == pytest.approx(0.9 * instance, rel=1e-10)
    assert found["batch"].item() == pytest.approx(0.9 * 0.5 * sum(b for b, _ in levels), rel=1e-10)
    assert found["class"].item() == pytest.approx(0.9 * 0.5 * sum(c for _, c in levels), rel=1e-10)


def test_paper_form_treats_the_views_alike(pairs):
    student, teacher = zip(*pairs, strict=True)
    one = step("mlkd", TARGET, student, teacher)
    other = step("mlkd", TARGET, student[::-1], teacher[::-1])
    for key in one:
        torch.testing.assert_close(one[key], other[key])


def test_only_the_code_form_counts_a_base_in_the_pool_twice():
    student, teacher = torch.zeros(2, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:2]
    at = {t: naive.soft_kl(student.tolist(), teacher.tolist(), t) for t in (2, 3, 5, 6)}
    pair = ((student, student), (teacher, teacher))
    paper = step("mlkd", [0, 1], *pair, temperature=2, kd_weight=1)["instance"]
    assert paper.item() == pytest.approx(2 * sum(at.values()), rel=1e-12)
    code = step("mlkd", [0, 1], *pair, temperature=2, kd_weight=1, form="code")["instance"]
    # both samples are equally sure, so all lie at the median: the mask keeps everything
    assert code.item() == pytest.approx(2 * (sum(at.values()) + at[2]), rel=1e-12)
