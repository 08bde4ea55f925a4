"""The power of one paired t-test, by scipy's noncentral t: an oracle for `kdbench.results.statistics.power`."""

import numpy as np
from scipy import optimize, stats


def detectable(std, n, alpha=0.05, power=0.8):
    """The smallest true mean that n paired differences of this std would show; NaN for n < 2."""
    if n < 2:
        return np.nan
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def lacking(effect):
        return power - stats.nct.sf(critical, n - 1, effect)  # the far tail is below 1e-5

    return std * optimize.brentq(lacking, 0.1, 30.0) / np.sqrt(n)
