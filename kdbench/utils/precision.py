"""How a device computes: in fp32, bf16 (autocast) or tf32 (fp32 with TF32 matrix products), and by which algorithms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kdbench.errors import KdbenchError


def check(precision: str, graphs: str, device: str) -> None:
    """Raise KdbenchError if the device does not support the precision or CUDA graphs."""
    if device.startswith("cuda"):
        return
    if precision == "tf32":
        raise KdbenchError(f"tf32 needs a CUDA device, not {device}; use --precision fp32 or bf16")
    if graphs:
        raise KdbenchError(f"--graphs needs a CUDA device, not {device}; leave it out")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast context for forward passes in a recipe's ``precision``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions only if ``precision`` is tf32; cuDNN uses it by default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Compute on ``device`` in ``precision``: the settings of torch that a training needs, restored at the end.

    The device is the current one, so that streams, events and graphs are its own. cuDNN takes deterministic algorithms
    and chooses none by trial, so that what a cell computes does not depend on what is trained beside it.
    """
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with current, tensor_cores(precision):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
