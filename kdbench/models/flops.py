"""What a model costs, and how to look at one without changing it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients; modules' modes, buffers and the global RNG come back as they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    parameter = next(model.parameters(), torch.empty(0))
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    try:
        model.eval()
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(
                    buffer, value
                ):  # a write would spoil a backward pass that is still to come
                    buffer.copy_(value)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


def sample(model: nn.Module, count: int, size: int) -> Tensor:
    """The same ``count`` random images [count, 3, size, size] in 0..1 each time, on the model's device."""
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images.to(device_of(model))


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, size: int, run: Callable[[Tensor], Tensor] | None = None) -> int:
    """Multiply-accumulates of one 3 x size x size image: convolutions, linear, attention's products.

    ``run``: what to call in the model's place, where more than the model is needed for an answer.
    """
    # attention as plain matrix products: the counter does not know every fused kernel
    with looking(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        (run or model)(sample(model, 1, size))
    return counter.get_total_flops() // 2
