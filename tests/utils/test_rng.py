"""A cell's random streams."""

import contextlib

import pytest
import torch

from kdbench.utils.rng import Streams

CPU = torch.device("cpu")


def test_a_cells_draws_depend_on_its_own_alone():
    alone, beside = Streams(7, CPU), Streams(7, CPU)
    other = Streams(8, CPU)
    drawn = []
    for streams, company in ((alone, None), (beside, other)):
        for _ in range(3):
            with streams.active():
                drawn.append(torch.rand(4))
            if company is not None:
                with company.active():
                    torch.rand(5)
    assert torch.equal(torch.stack(drawn[:3]), torch.stack(drawn[3:]))
    assert not torch.equal(drawn[0], drawn[1])


def test_a_methods_own_generator_is_no_copy_of_the_global_one():
    """Else the noise of a method would be the numbers that its modules began with."""
    streams = Streams(7, CPU)
    with streams.active():
        built = torch.rand(4)
    assert not torch.equal(torch.rand(4, generator=streams.generator), built)


def test_the_global_generator_is_restored_after_an_error():
    before = torch.get_rng_state()
    with contextlib.suppress(ValueError), Streams(7, CPU).active():
        torch.rand(3)
        raise ValueError
    assert torch.equal(torch.get_rng_state(), before)


class Generator:
    """A generator of a GPU: it points at a state that it can share, and cannot be copied while a graph is recorded."""

    def __init__(self, device="cuda:1"):
        self.state = {"drawn": 0}

    def manual_seed(self, seed):
        self.state = {"seed": seed, "drawn": 0}
        return self

    def graphsafe_get_state(self):
        twin = Generator()
        twin.state = self.state
        return twin

    def graphsafe_set_state(self, other):
        self.state = other.state

    def get_state(self):
        return dict(self.state)

    def set_state(self, state):
        self.state = dict(state)


@pytest.fixture
def on_gpu(monkeypatch):
    """Streams of a GPU, and the generator that draws there."""
    host, default = torch.Generator, Generator()
    monkeypatch.setattr(torch, "Generator", lambda device=None: host() if device is None else Generator())
    monkeypatch.setattr(torch.cuda, "default_generators", (None, default), raising=False)
    return (lambda seed: Streams(seed, torch.device("cuda:1"))), default


def test_on_a_gpu_the_state_is_shared_not_copied(on_gpu):
    """A branch of a graph draws from its own cell's state, which each replay advances."""
    make, default = on_gpu
    outside, streams = default.state, make(7)
    with streams.active():
        default.state["drawn"] += 4
        assert default.state["seed"] == 7
    assert default.state is outside
    assert streams.recorded[1].state == {"seed": 7, "drawn": 4}
    streams.recorded[1].state["drawn"] += 4  # a replay
    again = make(7)
    assert again.load(streams.state())
    assert again.recorded[1].state == {"seed": 7, "drawn": 8}


def test_states_of_another_kind_of_device_are_passed_over(on_gpu):
    make, _ = on_gpu
    here, there = Streams(7, CPU), make(7)
    for mine, other in ((here, there), (there, here)):
        before = mine.state()
        assert mine.load(other.state()) is False
        assert len(mine.state()["global"]) == len(before["global"])
    assert here.load(Streams(7, CPU).state()) is True
