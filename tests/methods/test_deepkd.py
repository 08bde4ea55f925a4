import pytest
import torch

from kdbench import registry
from kdbench.method import momentum_offset
from kdbench.methods.deepkd import deepkd_terms, kept_classes
from tests.support import naive
from tests.support.loops import same
from tests.support.standins import logits, step

registry.load()
TARGET = [0, 3, 1, 1, 2]


def by_hand(student, teacher, target, temperature, k):
    """One sample in plain Python: both terms."""
    p, q = naive.softmax(teacher, temperature), naive.softmax(student, temperature)
    target_part = naive.kl([p[target], 1 - p[target]], [q[target], 1 - q[target]])
    others = [c for c in range(len(teacher)) if c != target]
    kept = sorted(others, key=lambda c: -teacher[c])[:k]
    rest = naive.kl(*(naive.softmax([z[c] for c in kept], temperature) for z in (teacher, student)))
    return temperature**2 * target_part, temperature**2 * (1 - p[target]) * rest


@pytest.mark.parametrize("k", [2, 3, 5])
def test_terms_are_the_loop(k):
    student, teacher = logits(5, 6, 0), logits(5, 6, 1)
    found = deepkd_terms(student, teacher, torch.tensor(TARGET), 3.0, k)
    rows = zip(student.tolist(), teacher.tolist(), TARGET, strict=True)
    loop = torch.tensor([by_hand(s, t, y, 3.0, k) for s, t, y in rows], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found, dim=1), loop)


@pytest.mark.parametrize("epoch", [1.0, 120.0, 240.0])
def test_the_loss_is_the_loop(epoch):
    """Six classes: 2 non-targets in the first epoch, 3 in epoch 120, all 5 at the end."""
    student, teacher = logits(5, 6, 0), logits(5, 6, 1)
    found = step("deepkd", TARGET, (student,), (teacher,), epoch=epoch, temperature=3.0)
    k = {1.0: 2, 120.0: 3, 240.0: 5}[epoch]
    rows = zip(student.tolist(), teacher.tolist(), TARGET, strict=True)
    loop = [by_hand(s, t, y, 3.0, k) for s, t, y in rows]
    for place, name in enumerate(("tckd", "nckd")):
        assert found[name].item() == pytest.approx(0.5 * naive.mean(part[place] for part in loop), rel=1e-7)


def test_without_a_mask_the_terms_add_up_to_kd():
    pair = ((logits(5, 6, 0),), (logits(5, 6, 1),))
    found = step("deepkd", TARGET, *pair, epoch=1.0, mask_epochs=0)
    kd = step("kd", TARGET, *pair, kd_weight=0.5)["kd"]
    torch.testing.assert_close(found["tckd"] + found["nckd"], kd)


def test_a_masked_class_has_no_non_target_gradient():
    """The smallest non-target of the teacher is class 3; its student logit moves by TCKD alone."""
    student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 1.0, 0.5, -1.0]], dtype=torch.float64)
    _, rest = deepkd_terms(student, teacher, torch.tensor([0]), 1.0, 2)
    (slope,) = torch.autograd.grad(rest.sum(), student)
    assert (slope != 0).tolist() == [[False, True, True, False]]


def test_k_grows_from_a_share_to_all():
    assert [kept_classes(e, 120, 0.05, 99) for e in (1, 30.75, 120, 240)] == [5, 29, 99, 99]
    assert [kept_classes(e, 120, 0.05, 9) for e in (1, 120)] == [2, 9]
    assert kept_classes(1, 120, 0.05, 1) == 1
    assert kept_classes(1, 0, 0.05, 99) == 99
    grown = [kept_classes(e, 120, 0.05, 999) for e in range(1, 241)]
    assert grown == sorted(grown)


def test_each_term_has_its_offset():
    method = registry.create("deepkd", {"rest_offset": 0.05})
    assert [momentum_offset(method, term) for term in ("ce", "tckd", "nckd")] == [0.075, -0.075, 0.05]
    assert method.decayed == "ce"


def test_without_offsets_and_mask_it_trains_as_kd(lab):
    """As kd with the same weights and without a mask, up to the rounding of a loss in two parts."""
    level = {"task_offset": [0.0], "target_offset": [0.0], "rest_offset": [0.0]}
    (mine,) = lab.run(lab.cells("deepkd", sets={"deepkd": {**level, "mask_epochs": [0]}})).values()
    weights = {"ce_weight": [0.5], "kd_weight": [0.5]}
    (kd,) = lab.using(work="kd").run(lab.cells("kd", sets={"kd": weights})).values()
    assert mine.row["status"] == kd.row["status"] == "ok"
    for name, value in kd.student.items():
        torch.testing.assert_close(mine.student[name].float(), value.float(), rtol=1e-3, atol=1e-4)
    (other,) = lab.using(work="other").run(lab.cells("deepkd")).values()
    assert not same(other.student, mine.student)
