"""Seeded random streams: one generator per purpose, and the same numbers for a cell in any cohort."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kdbench.utils.hashing import canonical


def stream(purpose: str, *parts: Any) -> int:
    """Return the seed (63 bits) of a random stream: a hash of its purpose and what it depends on."""
    text = canonical([purpose, *parts]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(purpose: str, *parts: Any) -> torch.Generator:
    """Return a CPU generator at the start of the stream with this purpose."""
    return torch.Generator().manual_seed(stream(purpose, *parts))


class Streams:
    """A cell's random streams: torch's global generators while the cell is active, and one of its own."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        with torch.random.fork_rng(self._devices()):
            torch.manual_seed(seed)
            self._state = self._global_state()

    def _devices(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []

    def _global_state(self) -> list[Tensor]:
        return [torch.get_rng_state()] + [torch.cuda.get_rng_state(d) for d in self._devices()]

    def _set_global_state(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices(), states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Run a block on this cell's streams, then restore the global generators."""
        outside = self._global_state()
        self._set_global_state(self._state)
        try:
            yield
        finally:
            self._state = self._global_state()
            self._set_global_state(outside)

    def state(self) -> dict[str, Any]:
        """Return the state of all generators, for a checkpoint."""
        return {"global": self._state, "own": self.generator.get_state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._state = list(state["global"])
        self.generator.set_state(state["own"])
