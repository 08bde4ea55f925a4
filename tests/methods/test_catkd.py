import pytest
import torch
from torch.nn.functional import linear

from kdbench.methods.catkd import cat_loss, class_maps
from kdbench.registry import create
from tests.support import golden, naive, pairs


def partial(logits, hyper):
    """The maps that the release transfers: n - 1 of the top n, n + 1 of the lowest n."""
    count = hyper["cams_nums"]
    place = count - 1 if hyper["strategy"] == 0 else 99 - count
    mask = logits > logits.sort(descending=True).values[:, place, None]
    return mask if hyper["strategy"] == 0 else ~mask


@golden.each("catkd")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    maps = [inputs[f"{role}_cam"] for role in ("student", "teacher")]
    params = {
        "cat_weight": hyper["cat_weight"],
        "resolution": hyper["cam_resolution"],
        "normalize": hyper["normalize"],
        "ce_weight": hyper["ce_weight"],
    }
    mask = partial(maps[1].mean(dim=(2, 3)), hyper) if hyper["partial_cams"] else None
    cat = cat_loss(*maps, hyper["cam_resolution"], hyper["normalize"], mask)
    if hyper["partial_cams"]:
        golden.check(case, {"cat": cat, "total": hyper["cat_weight"] * cat}, inputs)
        return
    given = {**inputs, "student_logits": maps[0].mean(dim=(2, 3))}
    sides = ({"features": m, "classify": torch.nn.Identity()} for m in maps)
    _, named = pairs.step("catkd", given, *sides, **params)
    golden.check(case, {**named, "cat": cat}, inputs)


def corner(plane, row, column):
    """The mean of the 2 x 2 cell that begins at (row, column)."""
    return naive.mean(plane[row + i][column + j] for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize("normalize", [False, True])
def test_agrees_with_the_loop(normalize):
    student, teacher = pairs.random_map(2, 3, 4, 4), pairs.random_map(2, 3, 4, 4, seed=1)
    cells = []
    for maps in (student, teacher):
        for plane in maps.flatten(0, 1).tolist():
            found = [corner(plane, r, c) for r in (0, 2) for c in (0, 2)]
            size = naive.dot(found, found) ** 0.5 if normalize else 1
            cells.append([x / size for x in found])
    both = zip(pairs.flat(cells[:6]), pairs.flat(cells[6:]), strict=True)
    expected = naive.mean((a - b) ** 2 for a, b in both)
    assert cat_loss(student, teacher, 2, normalize).item() == pytest.approx(expected, rel=1e-10)


def test_the_mean_of_the_class_maps_is_the_logits():
    features, weight, bias = pairs.random_map(2, 3, 4, 5), pairs.random_map(7, 3, seed=1), pairs.random_map(7)
    maps = class_maps(features, lambda x: linear(x, weight, bias))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), linear(features.mean(dim=(2, 3)), weight, bias))
    torch.testing.assert_close(maps[1, :, 2, 3], linear(features[1, :, 2, 3], weight, bias))


def test_normalised_maps_do_not_feel_their_scale():
    maps = pairs.random_map(2, 3, 4, 4)
    assert cat_loss(5 * maps, maps, 2, normalize=True).item() == pytest.approx(0, abs=1e-15)
    assert cat_loss(maps + 2, maps, 2, normalize=False).item() == pytest.approx(4)


def test_a_head_that_is_not_linear_is_skipped_with_the_reason():
    assert "teacher's head" in pairs.Problem("catkd", "cnn", "vit").skipped
    assert "student's head" in pairs.Problem("catkd", "vit", "cnn").skipped
    assert create("catkd", {}).skip(pairs.Problem("catkd").context) is None


@pytest.mark.parametrize(("student", "teacher"), [p for p in pairs.PAIRS if "vit" not in p])
@pytest.mark.parametrize("normalize", [False, True])
def test_on_pairs(student, teacher, normalize):
    pairs.check("catkd", student, teacher, normalize=normalize)
