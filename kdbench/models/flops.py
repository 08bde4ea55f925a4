"""Count parameters and multiply-accumulates, and run a model without leaving a trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode without gradients, then restore module modes, buffers and the global RNG."""
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
                if not torch.equal(buffer, value):  # an in-place write would break a pending backward pass
                    buffer.copy_(value)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device


def random_images(model: nn.Module, count: int, size: int) -> Tensor:
    """Draw images [count, 3, size, size] in 0..1 on the model's device, the same ones on every call."""
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images.to(device_of(model))


def count_parameters(model: nn.Module) -> int:
    """Count the model's parameters."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, size: int, run: Callable[[Tensor], Tensor] | None = None) -> int:
    """Count the multiply-accumulates of one 3 x size x size image: convolutions, linear layers, attention.

    ``run`` is called instead of the model where a prediction needs more than the model.
    """
    # attention as plain matrix products: the counter does not know every fused kernel
    with probing(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        (run or model)(random_images(model, 1, size))
    return counter.get_total_flops() // 2
