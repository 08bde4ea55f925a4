"""crld and kd_twoview: sums of kd's term over pairs of views."""

import itertools

import pytest

from tests.support import naive
from tests.support.standins import logits, step

TARGET = [0, 3, 1, 1, 2]


@pytest.fixture
def models():
    return [tuple(logits(5, 4, seed) for seed in seeds) for seeds in ((0, 1), (2, 3))]  # student, teacher


def test_kd_twoview_is_kd_on_each_view(models):
    found = step("kd_twoview", TARGET, *models)
    for key in ("ce", "kd"):
        parts = [step("kd", TARGET, (s,), (t,))[key].item() for s, t in zip(*models, strict=True)]
        assert found[key].item() == pytest.approx(sum(parts), rel=1e-12)


@pytest.mark.parametrize(("within", "cross"), [(0.9, 0.2), (0.6, 0.7), (0.0, 0.0), (1.0, 1.0)])
def test_crld_agrees_with_the_loop(models, within, cross):
    found = step("crld", TARGET, *models, within_threshold=within, cross_threshold=cross)
    student, teacher = ([view.tolist() for view in model] for model in models)
    of_within = of_cross = 0.0
    for i, (a, b) in itertools.product(range(5), itertools.product(range(2), range(2))):
        gap = 16 * naive.kl(naive.softmax(teacher[a][i], 4), naive.softmax(student[b][i], 4))
        if a == b and max(naive.softmax(teacher[0][i])) >= within:
            of_within += gap / 5
        if a != b and max(naive.softmax(teacher[1][i])) >= cross:
            of_cross += gap / 5
    assert found["within"].item() == pytest.approx(2 * of_within, rel=1e-10)
    assert found["cross"].item() == pytest.approx(0.5 * of_cross, rel=1e-10)
    ce = sum(naive.cross_entropy(view, TARGET) for view in student)
    assert found["ce"].item() == pytest.approx(ce, rel=1e-10)


def test_crld_without_thresholds_and_cross_terms_is_kd_twoview(models):
    one = step("crld", TARGET, *models, within_threshold=0, within_weight=1, cross_weight=0)
    other = step("kd_twoview", TARGET, *models, kd_weight=1)
    assert one["within"].item() == pytest.approx(other["kd"].item(), rel=1e-12)
    assert one["cross"].item() == 0
