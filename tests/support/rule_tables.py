"""Tables with known truth for the simulations of the decision rules, many at a time."""

import itertools
import math

import numpy as np
import pytest

SD = 0.25  # of one run, points
EFFECTS = np.array([0.0, 0.0, 0.0, 0.0, 0.2, 0.5, 1.0, -0.5])  # the baseline first, then three equal to it
SIZES = [1000, pytest.param(20_000, marks=pytest.mark.slow)]  # tables a simulation


def seeds(tables, n=3, effects=EFFECTS, shared=0.0, sd=SD, seed=0):
    """Accuracies [tables, seeds, methods], rounded to .01; ``shared``: correlation of methods on one seed.

    ``sd``: of one run; a number, or one for each method.
    """
    rng = np.random.default_rng(seed)
    shape = (tables, n, np.shape(effects)[-1])
    noise = math.sqrt(1 - shared) * rng.normal(size=shape)
    noise += math.sqrt(shared) * rng.normal(size=(tables, n, 1))
    return (70 + np.broadcast_to(effects, shape) + sd * noise).round(2)


def pairs(tables, k=6, apart=0.3, n=3, effects=EFFECTS, teachers=None, seed=0):
    """Means over n seeds [tables, pairs, methods]; ``apart``: std of a difference from pair to pair.

    ``teachers`` [pairs]: half of that variance is then the teacher's.
    """
    rng = np.random.default_rng(seed)
    shape = (tables, k, len(effects))
    single = apart / math.sqrt(2)  # a difference has it twice
    mixed = rng.normal(size=shape)
    if teachers is not None:
        own = rng.normal(size=(tables, max(teachers) + 1, len(effects)))[:, teachers]
        mixed = math.sqrt(0.5) * (mixed + own)
    levels = rng.normal(0, 3, (tables, k, 1))
    return 70 + levels + effects + single * mixed + rng.normal(0, SD / math.sqrt(n), shape)


def near(rate, count, sigmas=4.0):
    """The rate, give or take what chance moves it in ``count`` independent trials."""
    return pytest.approx(rate, abs=sigmas * math.sqrt(rate * (1 - rate) / count) + 1e-9)


def sign_flip(values):
    """Two-sided p that the mean is 0, by trying every pattern of signs."""
    seen = abs(sum(values)) - 1e-9
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return sum(each >= seen for each in sums) / len(sums)


def holm(p_values):
    """Holm's step-down adjustment, one p after the other."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, floor = [0.0] * len(order), 0.0
    for place, i in enumerate(order):
        floor = max(floor, min(1.0, p_values[i] * (len(order) - place)))
        adjusted[i] = floor
    return np.array(adjusted)
