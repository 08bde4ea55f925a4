"""What ranks exchange, on real process groups, against one process with the whole batch."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.functional import batch_norm

from kdbench.method import Batch, Method, Outputs
from kdbench.train.ranks import Ranks, bounds, shared
from tests.support.rank_processes import alone, on_ranks

COUNT = 7  # shared unevenly by 2 and by 3
NORMS = {
    "2d": (lambda: nn.BatchNorm2d(3), (3, 4, 4)),
    "1d": (lambda: nn.BatchNorm1d(3), (3,)),
    "timm's": (lambda: BatchNormAct2d(3), (3, 4, 4)),
    "without affine terms": (lambda: nn.BatchNorm2d(3, affine=False), (3, 2, 2)),
    "without running statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 2, 2)),
    "cumulative": (lambda: nn.BatchNorm2d(3, momentum=None), (3, 2, 2)),
}


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def measure(ranks):
    """All that the tests compare, of one rank."""
    found = {name: normalised(ranks, *how) for name, how in NORMS.items()}
    found["far from 0"] = normalised(ranks, lambda: nn.BatchNorm2d(3).float(), (3, 4, 4), 1000, torch.float32)
    return {
        **found,
        "pairs": pairs(ranks),
        "sums": sums(ranks),
        "flags": ranks.any_of([ranks.rank == ranks.world - 1, False]),
        "first": ranks.of_first({"rank": ranks.rank}),
        "all": ranks.of_all(ranks.rank),
    }


def normalised(ranks, make, shape, shift=0.0, dtype=torch.float64):
    """Two steps of a BatchNorm: outputs and gradients of the own samples, summed gradients, the module's state."""
    torch.manual_seed(1)
    norm = make().to(dtype).train()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    values = (drawn(COUNT, *shape) + shift).to(dtype)
    part = ranks.part(COUNT)
    inputs = values[part].clone().requires_grad_()
    with ranks.batch_norm(COUNT):
        norm(inputs.detach() * 2)
        output = norm(inputs)
    (output * drawn(COUNT, *shape).to(dtype)[part].flip(1)).square().sum().backward()
    slopes = [parameter.grad for parameter in norm.parameters()]
    ranks.add_up(slopes)
    return {"parts": [output.detach(), inputs.grad], "wholes": [*slopes, *norm.state_dict().values()]}


def pairs(ranks):
    """The gradient of a loss of all pairs of samples, of which every rank computes its share."""
    part = ranks.part(COUNT)
    own = drawn(COUNT, 4)[part].clone().requires_grad_()
    weight = torch.eye(4, dtype=torch.float64, requires_grad=True)
    rows = ranks.gather(own, COUNT) @ weight if ranks.world > 1 else own @ weight
    ((rows @ rows.T).exp().sum().log() / ranks.world).backward()
    ranks.add_up([weight.grad])
    return {"parts": [own.grad], "wholes": [weight.grad]}


def sums(ranks):
    tensors = [torch.full((2, 3), ranks.rank + 1.0), torch.tensor(ranks.rank), torch.ones(())]
    ranks.add_up(tensors)
    return tensors


@pytest.fixture(scope="module", params=[2, 3])
def of_ranks(request):
    return on_ranks(measure, request.param)


@pytest.fixture(scope="module")
def of_one():
    return alone(measure)


@pytest.mark.parametrize("what", [*NORMS, "far from 0", "pairs"])
def test_parts_give_what_the_whole_gives(of_ranks, of_one, what):
    close = {"rtol": 1e-3, "atol": 1e-3} if what == "far from 0" else {"rtol": 1e-10, "atol": 1e-12}
    whole = of_one[what]
    for place, expected in enumerate(whole["parts"]):
        parts = torch.cat([rank[what]["parts"][place] for rank in of_ranks])
        torch.testing.assert_close(parts, expected, **close)
    for rank in of_ranks:
        torch.testing.assert_close(rank[what]["wholes"], whole["wholes"], **close)


def test_all_ranks_end_with_the_same_bits(of_ranks):
    for what in (*NORMS, "pairs"):
        for rank in of_ranks[1:]:
            for one, other in zip(of_ranks[0][what]["wholes"], rank[what]["wholes"], strict=True):
                assert torch.equal(one, other), what


def test_sums_keep_shapes_and_dtypes(of_ranks):
    world = len(of_ranks)
    for floats, number, ones in (rank["sums"] for rank in of_ranks):
        assert torch.equal(floats, torch.full((2, 3), world * (world + 1) / 2))
        assert number.dtype == torch.int64
        assert (int(number), float(ones)) == (world * (world - 1) // 2, world)


def test_ranks_agree(of_ranks):
    for rank in of_ranks:
        assert rank["flags"] == [True, False]
        assert rank["first"] == {"rank": 0}
        assert rank["all"] == list(range(len(of_ranks)))


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_sample_has_one_rank(count, world):
    places = bounds(count, world)
    assert [row for place in places for row in range(count)[place]] == list(range(count))
    sizes = [place.stop - place.start for place in places]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_evaluation_is_torchs_own():
    norm = nn.BatchNorm2d(3).eval()
    images = torch.randn(4, 3, 2, 2)
    with Ranks(0, 2).batch_norm(COUNT):  # no other rank is there to answer
        assert torch.equal(norm(images), norm(images))
        assert torch.equal(batch_norm(images, norm.running_mean, norm.running_var), norm(images))


class Apart(Method):
    name = "apart"


class Coupled(Method):
    name = "coupled"
    coupled = True


def test_a_small_batch_is_computed_whole_by_every_rank():
    batch = Batch(torch.arange(3), 1.0, False, torch.tensor(0.0), torch.Generator())
    outputs = {"weak": Outputs(torch.randn(3, 4))}
    for method in (Apart(), Coupled()):
        given = shared(Ranks(1, 2), method, batch, outputs, copy.copy(outputs))
        assert given.batch is batch
        assert given.student is outputs
        assert float(given.share) == 0.5


def test_what_is_separable_gets_its_part():
    batch = Batch(torch.arange(5), 1.0, False, torch.tensor(0.0), torch.Generator(), torch.arange(5) + 10)
    outputs = {"weak": Outputs(torch.randn(2, 4))}
    given = shared(Ranks(1, 2), Apart(), batch, outputs, {})
    assert given.batch.target.tolist() == [3, 4]
    assert given.batch.index.tolist() == [13, 14]
    assert float(given.share) == pytest.approx(2 / 5)
