"""Where a method changes with ``batch.epoch``: the numbers that it compares the epoch with."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.modules import fresh
from kdbench.contract.synthetic.problem import PHASES
from kdbench.method import Method

BESIDE = 0.5  # how far from a threshold its two sides are looked at
ROUNDS = 3  # thresholds, those behind them, and those behind these


class Traced(float):
    """An epoch, or scale * epoch + offset of one, that notes in ``seen`` each epoch at which a comparison turns."""

    seen: set[float]
    scale: float
    offset: float

    def __new__(cls, value: float, seen: set[float], scale: float = 1.0, offset: float = 0.0) -> Traced:
        """Create a value that records in ``seen`` where comparisons with it change."""
        traced = super().__new__(cls, value)
        traced.seen, traced.scale, traced.offset = seen, scale, offset
        return traced

    def moved(self, value: float, scale: float, offset: float) -> Traced:
        """``value``, which is scale * self + offset."""
        return Traced(value, self.seen, scale * self.scale, scale * self.offset + offset)

    def compared(self, compare: Callable[[float, float], bool], other: Any) -> bool:
        """Note the epoch at which self equals ``other``, then compare."""
        if not isinstance(other, int | float):
            return NotImplemented
        if self.scale and _plain(other):
            self.seen.add((float(other) - self.offset) / self.scale)
        return compare(float(self), float(other))

    __hash__ = float.__hash__
    __lt__ = functools.partialmethod(compared, operator.lt)  # type: ignore[assignment]
    __le__ = functools.partialmethod(compared, operator.le)  # type: ignore[assignment]
    __gt__ = functools.partialmethod(compared, operator.gt)  # type: ignore[assignment]
    __ge__ = functools.partialmethod(compared, operator.ge)  # type: ignore[assignment]
    __eq__ = functools.partialmethod(compared, operator.eq)  # type: ignore[assignment]
    __ne__ = functools.partialmethod(compared, operator.ne)  # type: ignore[assignment]

    def __add__(self, other: Any) -> Any:
        return self.moved(float(self) + other, 1, other) if _plain(other) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self.moved(float(self) - other, 1, -other) if _plain(other) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return self.moved(other - float(self), -1, other) if _plain(other) else NotImplemented

    def __mul__(self, other: Any) -> Any:
        return self.moved(float(self) * other, other, 0) if _plain(other) else NotImplemented

    def __truediv__(self, other: Any) -> Any:
        return self.moved(float(self) / other, 1 / other, 0) if _plain(other) else NotImplemented

    __radd__, __rmul__ = __add__, __mul__


def _plain(value: Any) -> bool:
    return type(value) in (int, float)


def thresholds(method: Method) -> list[float]:
    """The epochs between the first and the last of a reference schedule that loss or update compares with."""
    problem = problems.make(method, max(7, method.min_batch))
    modules = fresh(problem)
    seen: set[float] = set()
    for _ in range(ROUNDS):
        known = _within(seen)
        for epoch in (*PHASES, *(t + side for t in known for side in (-BESIDE, BESIDE))):
            run = problem.run(modules, Traced(epoch, seen), last=True)
            problem.update(run, modules)
    return _within(seen)


def _within(seen: set[float]) -> list[float]:
    return sorted(threshold for threshold in seen if PHASES[0] <= threshold < PHASES[-1])
