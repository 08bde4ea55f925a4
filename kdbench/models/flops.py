"""Count parameters and multiply-accumulates, and run a model without leaving a trace."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdbench.errors import KdbenchError, first_line


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


def architecture(model: nn.Module) -> str:
    """Return the model's name in timm's registry, or its class."""
    return _config(model).get("architecture") or type(model).__name__


def _config(model: nn.Module) -> Any:
    return getattr(model, "pretrained_cfg", None) or {}


@contextmanager
def working_at(model: nn.Module, size: int, name: str = "") -> Iterator[None]:
    """Raise KdbenchError, with the remedy, where the block's forward pass of a timm model fails at ``size`` px.

    ``name``: what the model is called; by default its architecture.
    """
    try:
        yield
    except (RuntimeError, AssertionError, TypeError, ValueError, AttributeError, IndexError) as error:
        name, reason = name or architecture(model), first_line(error).rstrip(".")
        remedy = "choose another network or size"
        if _config(model).get("fixed_input_size"):
            sizes = f"img_size = {size}, patch_size = {max(1, size // 8)}"
            remedy = f'define it in the suite: [models.NAME] with arch = "{name}", args = {{ {sizes} }}'
        raise KdbenchError(f"model {name!r} does not work on {size} px images: {reason}; {remedy}") from error


def check_size(model: nn.Module, size: int, name: str = "") -> None:
    """Raise KdbenchError as `working_at` does where the model does not work on ``size`` px images."""
    with probing(model), working_at(model, size, name):
        model(random_images(model, 1, size))


def macs(model: nn.Module, size: int, run: Callable[[Tensor], Tensor] | None = None) -> int:
    """Count the multiply-accumulates of one 3 x size x size image: convolutions, linear layers, attention.

    ``run`` is called instead of the model where a prediction needs more than the model. Raises KdbenchError for a model
    that does not work at this size.
    """
    checked = contextlib.nullcontext() if run else working_at(model, size)
    # attention as plain matrix products: the counter does not know every fused kernel
    with probing(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, checked:
        (run or model)(random_images(model, 1, size))
    return counter.get_total_flops() // 2
