"""The power of a table: the smallest true difference that it detects, and the runs that a given one needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize
from statsmodels.stats.power import TTestPower

SIZES = (0.2, 0.5, 1.0)  # points
MOST = 1000


def detects(sd: float, methods: int, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference of two methods, in points, that is detected with this probability.

    ``sd``: error of one run, pooled over ``methods`` methods with n blocks (seeds, or pairs) each. A two-sided test of
    one difference with the pooled error, of (methods - 1) (n - 1) degrees of freedom. NaN for n < 2, one method or an
    unknown sd.
    """
    if methods < 2 or n < 2 or np.isnan(sd):
        return np.nan
    return float(sd * np.sqrt(2) * _effect(methods, n, power, alpha))


def needed(
    sd: float, methods: int, sizes: Sequence[float] = SIZES, power: float = 0.8, alpha: float = 0.05
) -> dict[float, int | None]:
    """Size in points -> the fewest blocks (at least 2) that show it; None: more than MOST, or unknown sd."""
    return {size: _fewest(float(sd), methods, size, power, alpha) for size in sizes}


def _fewest(sd: float, methods: int, size: float, power: float, alpha: float) -> int | None:
    if not detects(sd, methods, MOST, power, alpha) <= size:
        return None
    low, high = 1, MOST  # low shows too little, high enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detects(sd, methods, middle, power, alpha) <= size else (middle, high)
    return high


@lru_cache(maxsize=1024)
def _effect(methods: int, n: int, power: float, alpha: float) -> float:
    """In units of the standard deviation of one paired difference."""
    test, df = TTestPower(), (methods - 1) * (n - 1)

    def lacking(size: float) -> float:  # the far tail is below 1e-5, and often NaN in scipy
        return power - float(test.power(size, n, alpha / 2, df=df, alternative="larger"))

    return float(optimize.brentq(lacking, 1e-6, 30 / np.sqrt(n)))
