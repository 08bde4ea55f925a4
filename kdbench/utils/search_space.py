"""Ranges that a hyperparameter is searched in. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    def table(self) -> dict[str, list[float]]:
        """As a file of ranges has it (see `of_table`)."""
        return {"log" if self.log else "linear": [self.low, self.high]}

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
    def table(self) -> dict[str, list[Any]]:
        """As a file of ranges has it (see `of_table`)."""
        return {"choice": list(self.values)}

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


FORMS: Mapping[str, Callable[..., Range | Choice]] = {
    "log": log_range,
    "linear": linear_range,
    "choice": choice,
}


def of_table(table: Any) -> Range | Choice:
    """Read ``{"log": [low, high]}``, ``{"linear": [low, high]}`` or ``{"choice": [...]}``.

    Raises KdbenchError, without a word on where the table is, for anything else.
    """
    if not (isinstance(table, dict) and len(table) == 1 and table.keys() <= FORMS.keys()):
        raise KdbenchError("takes { log = [low, high] }, { linear = [low, high] } or { choice = [...] }")
    ((form, ends),) = table.items()
    if not isinstance(ends, list | tuple):
        raise KdbenchError(f"{form} takes a list, got {ends!r}")
    if form != "choice" and not (len(ends) == 2 and all(type(end) in (int, float) for end in ends)):
        raise KdbenchError(f"{form} takes two numbers, got {ends!r}")
    return FORMS[form](*ends)


def distribution(values: Range | Choice, kind: Any = float) -> Any:
    """Return the Optuna distribution of a parameter of the type ``kind``. Raises ImportError without Optuna."""
    from optuna import distributions

    if isinstance(values, Choice):
        return distributions.CategoricalDistribution(values.values)
    if kind is int:
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)
