"""Seeded random streams: one generator per purpose, and the same numbers for a cell in any cohort."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from kdbench.utils.hashing import canonical


def stream(purpose: str, *parts: Any) -> int:
    """Return the seed (63 bits) of a random stream: a hash of its purpose and what it depends on."""
    text = canonical([purpose, *parts]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(purpose: str, *parts: Any) -> torch.Generator:
    """Return a CPU generator at the start of the stream with this purpose."""
    return torch.Generator().manual_seed(stream(purpose, *parts))


class Streams:
    """A cell's random streams: torch's global generators while the cell is active, and one of its own.

    On a GPU the device's global generator is not copied but pointed at the cell's own state, which a CUDA graph can
    record and advance.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(stream("own", seed))
        self._host = torch.Generator().manual_seed(seed).get_state()
        self._on_gpu = torch.Generator(device).manual_seed(seed) if device.type == "cuda" else None

    @property
    def recorded(self) -> tuple[torch.Generator, ...]:
        """The generators that a CUDA graph of the cell's steps draws from."""
        return (self.generator,) if self._on_gpu is None else (self.generator, self._on_gpu)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Run a block on this cell's streams, then restore the global generators."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._host)
        try:
            with self._active_on_gpu():
                yield
        finally:
            self._host = torch.get_rng_state()
            torch.set_rng_state(outside)

    @contextlib.contextmanager
    def _active_on_gpu(self) -> Iterator[None]:
        if self._on_gpu is None:
            yield
            return
        number = torch.cuda.current_device() if self.device.index is None else self.device.index
        default = torch.cuda.default_generators[number]
        outside = default.graphsafe_get_state()
        default.graphsafe_set_state(self._on_gpu)
        try:
            yield
        finally:
            default.graphsafe_set_state(outside)

    def state(self) -> dict[str, Any]:
        """Return the state of all generators, for a checkpoint."""
        on_gpu = [] if self._on_gpu is None else [self._on_gpu.get_state()]
        return {"global": [self._host, *on_gpu], "own": self.generator.get_state()}

    def load(self, state: Mapping[str, Any]) -> bool:
        """Restore what `state` returned; False where that was on another kind of device: the streams stay."""
        host, *on_gpu = state["global"]
        if len(on_gpu) != (self._on_gpu is not None):
            return False
        self._host = host
        if self._on_gpu is not None:
            self._on_gpu.set_state(on_gpu[0])
        self.generator.set_state(state["own"])
        return True
