"""Ranges that a hyperparameter is searched in. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.errors import KdbenchError


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; ``log``: drawn with a uniform logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise KdbenchError(f"the range [{self.low}, {self.high}] is empty; give the smaller number first")
        if self.log and self.low <= 0:
            raise KdbenchError(f"a logarithmic range must begin above 0, not at {self.low}")

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high

    @property
    def corners(self) -> tuple[float, float]:
        """The values at its edges."""
        return self.low, self.high

    def share(self, value: float) -> float:
        """Where ``value`` lies: 0 at the low end, 1 at the high one, by its logarithm in a logarithmic range."""
        low, high, place = (
            map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return (place - low) / (high - low)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of ``values``, without an order."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(self.values)) < 2:
            raise KdbenchError(f"a choice needs two different values, got {list(self.values)}")

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def corners(self) -> tuple[Any, ...]:
        """All of its values."""
        return self.values

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


Space = Mapping[str, Range | Choice]


def log_range(low: float, high: float) -> Range:
    """The numbers from ``low`` > 0 to ``high``, drawn with a uniform logarithm: for weights and temperatures."""
    return Range(low, high, log=True)


def linear_range(low: float, high: float) -> Range:
    """The numbers from ``low`` to ``high``, drawn uniformly: for shares and orders."""
    return Range(low, high)


def choice(*values: Any) -> Choice:
    """One of ``values``."""
    return Choice(values)
