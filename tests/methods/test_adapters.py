"""What the feature methods share, against torch's own and hand values."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from kdbench import registry
from kdbench.methods._adapters import LinearHead, needs_linear_head, paired, pool, pool_to_smaller, unit
from tests.support import pairs


def test_unit_is_normalize_but_a_zero_vector_has_no_gradient():
    rows = pairs.random_map(3, 4)
    torch.testing.assert_close(unit(rows), normalize(rows))
    torch.testing.assert_close(unit(rows, 0), normalize(rows, dim=0))
    zero = torch.zeros(1, 2, requires_grad=True)
    unit(zero).sum().backward()
    assert unit(zero).tolist() == zero.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), (4, 4)), ((7, 5), (4, 2)), ((2, 2), (4, 3)), ((4, 4), (1, 1))]
)
def test_the_pool_is_torch_s_own(old, new):
    maps = pairs.random_map(2, 3, *old)
    torch.testing.assert_close(pool(maps, new), adaptive_avg_pool2d(maps, new))
    assert pool(maps, old) is maps


def test_the_larger_map_is_pooled():
    small, large = pairs.random_map(2, 3, 2, 2), pairs.random_map(2, 5, 4, 4)
    for first, second in ((small, large), (large, small)):
        found = pool_to_smaller(first, second)
        assert [f.shape for f in found] == [(2, first.shape[1], 2, 2), (2, second.shape[1], 2, 2)]


def test_stages_are_paired_from_the_last():
    assert paired("abc", "wxyz") == [("a", "x"), ("b", "y"), ("c", "z")]
    assert paired("wxyz", "abc") == [("x", "a"), ("y", "b"), ("z", "c")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_head_is_copied_to_the_bit_in_its_own_precision(dtype):
    layer = torch.nn.Linear(6, 4).to(dtype)
    head = LinearHead(layer, pairs.context(4), 6)
    assert torch.equal(head.weight, layer.weight)
    assert torch.equal(head.bias, layer.bias)
    assert not head.weight.requires_grad
    rows = torch.randn(3, 6, dtype=dtype)
    assert torch.equal(head(rows), layer(rows))


def test_who_lacks_a_linear_head_is_named():
    cnn, vit = (pairs.Model(kind, 0).facts() for kind in ("cnn", "vit"))
    assert needs_linear_head("x", student=cnn, teacher=cnn) is None
    assert needs_linear_head("x", student=cnn, teacher=vit).startswith("the teacher's head")


def test_the_helpers_are_no_method():
    assert "_adapters" not in [entry.name for entry in registry.entries()]
