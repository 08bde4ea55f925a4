import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from kdbench.methods.sdd import cell_logits, cell_weight, pool
from kdbench.registry import create
from tests.support import golden, naive
from tests.support.standins import batch, context, facts, views, with_totals
from tests.support.standins import step as step_of

TARGET = [0, 3, 1, 1, 2]


def step(student_map, teacher_map, target, epoch=240.0, **params):
    """The terms from maps of logits; as in the reference's models, the output is the 4 x 4 grid's mean."""
    method = create("sdd", params)
    models = (
        views(method, adaptive_avg_pool2d(m, 4).mean(dim=(2, 3)), features=m, classify=torch.nn.Identity())
        for m in (student_map, teacher_map)
    )
    return method.loss(batch(target, epoch), *models, None)


def terms(case, inputs):
    hyper = case.hyper
    names = ("temperature", "ce_weight", "kd_weight", "alpha", "beta", "gamma", "warmup_epochs")
    params = {key: hyper[key] for key in names if key in hyper}
    params |= {"base": case.name.split("-")[0].removeprefix("sdd_"), "form": "code"}
    params |= {"scales": hyper["M"].strip("[]").replace(",", "-")}
    maps = (inputs["student_logit_map"], inputs["teacher_logit_map"])
    return with_totals(step(*maps, inputs["target"], epoch=float(hyper.get("epoch", 240)), **params))


@golden.each("sdd_kd", "sdd_dkd", "sdd_nkd")
def test_reference(case, dtype):
    inputs = case.inputs(dtype)
    golden.check(case, terms(case, inputs), inputs)
    if case.hyper["M"] == "[1]":
        return
    scales = tuple(int(c) for c in case.hyper["M"] if c.isdigit())
    for model in ("student", "teacher"):
        cells = cell_logits(inputs[f"{model}_logit_map"], torch.nn.Identity(), scales)
        stored = case.arrays[f"{model}_regions"]  # [B, C, N]
        golden.close(cells, stored.transpose(2, 0, 1).reshape(-1, stored.shape[1]), model)
    golden.close(cell_weight(cells, inputs["target"], 2.0), case.arrays["region_weight"], "weights")


def maps(seed, size=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 6, size, size, generator=generator, dtype=torch.float64)


def loop_cells(feature_map, head, scale):
    """[cell][class] logits of one sample: means over the squares of a scale x scale grid, then the head."""
    size = len(feature_map[0]) // scale
    cells = []
    for top in range(0, size * scale, size):
        for left in range(0, size * scale, size):
            square = [
                [row[left : left + size] for row in channel[top : top + size]] for channel in feature_map
            ]
            pooled = [naive.mean(x for row in channel for x in row) for channel in square]
            cells.append([naive.dot(weights, pooled) for weights in head])
    return cells


def base_loss(base, s, t, y):
    if base == "kd":
        return 16 * naive.kl(naive.softmax(t, 4), naive.softmax(s, 4))
    if base == "dkd":
        tckd, nckd = naive.dkd(s, t, y, 4)
        return tckd + 8 * nckd
    hit, rest = naive.nkd(s, t, y, 4)
    return hit + 8 * rest


@pytest.mark.parametrize("base", ["kd", "dkd", "nkd"])
@pytest.mark.parametrize("scales", [(1,), (1, 2), (1, 2, 4)])
def test_agrees_with_the_loop(base, scales):
    student, teacher = 2 * maps(0), 2 * maps(1)
    heads = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    method = create("sdd", {"base": base, "scales": "-".join(map(str, scales))})
    models = [
        views(method, m.mean(dim=(2, 3)) @ w.T, features=m, classify=lambda x, w=w: x @ w.T)
        for m, w in zip((student, teacher), heads, strict=True)
    ]
    found = method.loss(batch(TARGET, 10.0), *models, None)["sdd"]
    rows = []
    for i, y in enumerate(TARGET):
        s, t = (
            [cell for scale in scales for cell in loop_cells(m[i].tolist(), w.tolist(), scale)]
            for m, w in zip((student, teacher), heads, strict=True)
        )
        right = [cell.index(max(cell)) == y for cell in t]
        weights = [1 if r == right[0] else 2 for r in right]
        rows += [w * base_loss(base, a, b, y) for w, a, b in zip(weights, s, t, strict=True)]
    assert found.item() == pytest.approx((1 if base == "kd" else 0.5) * naive.mean(rows), rel=1e-10)


def test_one_cell_is_the_base_method():
    student, teacher = maps(0), maps(1)
    pooled = [(m.mean(dim=(2, 3)),) for m in (student, teacher)]
    for base in ("kd", "dkd", "nkd"):
        params = {"gamma": 8, "temperature": 4} if base == "nkd" else {"kd_weight": 1} if base == "kd" else {}
        expected = with_totals(step_of(base, TARGET, *pooled, **params))["total"]
        found = step(student, teacher, TARGET, base=base, scales="1")["sdd"]
        torch.testing.assert_close(found, expected)


def test_complementary_cells_weigh_more():
    # cells' predictions: global right; then right, wrong, wrong, right
    teacher = torch.eye(2)[[0, 0, 1, 1, 0]]
    assert cell_weight(teacher, torch.tensor([0]), 3.0).tolist() == [1, 1, 3, 3, 1]
    assert cell_weight(teacher, torch.tensor([1]), 3.0).tolist() == [1, 1, 3, 3, 1]


def test_a_head_that_is_not_linear_is_skipped_with_the_reason():
    method = create("sdd", {})
    assert method.skip(context()) is None
    assert "student" in method.skip(context(student=facts(linear_head=False)))
    assert "teacher" in method.skip(context(teacher=facts(linear_head=False)))


def test_the_pool_is_torch_s_own():
    for height, width, cells in ((8, 8, 4), (7, 5, 4), (2, 2, 4), (4, 4, 1), (4, 4, 2)):
        features = torch.randn(2, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(pool(features, cells), adaptive_avg_pool2d(features, cells))
