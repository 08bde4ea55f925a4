"""Hashes of weights, and the seeds of random streams."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdbench.hashing import canonical


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """12 hex digits over names, shapes and bytes of a state dict, whatever its order."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:12]


def stream(purpose: str, *parts: Any) -> int:
    """The seed (63 bits) of one random stream: a hash of what it is for and what it depends on."""
    text = canonical([purpose, *parts]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(purpose: str, *parts: Any) -> torch.Generator:
    """A CPU generator at the start of that stream."""
    return torch.Generator().manual_seed(stream(purpose, *parts))
