"""Hashes of values and weights, and the random streams that are made of them."""

import hashlib

import pytest
import torch

from kdbench.utils import hashing
from kdbench.utils.rng import generator, stream
from kdbench.utils.state_dicts import weights_digest

# --- hashes ---


def test_canonical_text_does_not_depend_on_the_order_of_keys():
    assert hashing.canonical({"b": 1, "a": (1, 2.5)}) == '{"a":[1,2.5],"b":1}'
    assert hashing.canonical({"a": [1, 2.5], "b": 1}) == '{"a":[1,2.5],"b":1}'


def test_canonical_text_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        hashing.canonical({"lr": float("nan")})


def test_digest_is_the_head_of_sha256():
    assert hashing.digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:12]


def test_weights_digest_ignores_order_and_memory_layout():
    weight, bias = torch.randn(4, 3, 2, 2), torch.randn(4)
    last = weight.to(memory_format=torch.channels_last)
    one = weights_digest({"w": weight, "b": bias})
    assert one == weights_digest({"b": bias.clone(), "w": last})


@pytest.mark.parametrize(
    "changed",
    [
        {"w": torch.tensor([1.0, 2.0, 3.0, 4.0000005])},  # one bit of one number
        {"v": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        {"w": torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)},
        {"w": torch.tensor([1.0, 2.0, 3.0, 4.0]), "n": torch.tensor(0)},
        {"w": torch.tensor([1.0, 2.0, 3.0, 4.0]), "n": torch.zeros(0)},
    ],
)
def test_weights_digest_sees_every_value_name_shape_and_type(changed):
    assert weights_digest({"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}) != weights_digest(changed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.float16])
def test_weights_digest_takes_every_type(dtype):
    zeros, ones = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    assert weights_digest({"a": zeros}) != weights_digest({"a": ones})


def test_streams_are_hashes_of_purpose_and_parts():
    text = b'["order","split",0,3]'
    assert stream("order", "split", 0, 3) == int.from_bytes(hashlib.sha256(text).digest()[:8], "big") // 2
    seeds = {stream(*key) for key in (("a", "b", 0), ("a", "b", 1), ("a", "c", 0), ("ab", 0))}
    assert len(seeds) == 4


def test_a_generator_starts_its_stream_anew_each_time():
    first, second = (torch.rand(5, generator=generator("order", "x", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=generator("order", "x", 2)))
