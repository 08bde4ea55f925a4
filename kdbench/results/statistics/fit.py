"""Arithmetic of value = method + block + error on arrays [..., blocks, methods]; leading axes are separate tables.

NaN is a gap: each cell counts once. ``kept`` [..., methods] says which methods are in the pool.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats as distributions

NOISY_LEVEL = 0.01  # over all methods of a table: the chance that one of equal methods is left out
ZERO = 1e-18  # a variance below this is rounding


class Fit(NamedTuple):
    """Additive least squares over the kept methods.

    blocks [..., b]: their effects, of mean 0 (0 where no kept method has a value); inverse [..., b, b]: their
    covariance / variance; means [..., m]: methods' means as if they had run in every other block (NaN: not kept);
    variance and df [...] of the error (NaN and 0: none left).
    """

    blocks: np.ndarray
    inverse: np.ndarray
    means: np.ndarray
    variance: np.ndarray
    df: np.ndarray


class Error(NamedTuple):
    """The pooled fit and how methods relate to it.

    kept, noisy [..., m]: in the pool, left out for their noise; means [..., m]: adjusted, of all methods; p_noisy
    [..., m]: p that a method is no noisier than the others in the pool; unequal [...]: p that the kept methods'
    variances are the same (NaN: not testable).
    """

    fit: Fit
    kept: np.ndarray
    noisy: np.ndarray
    means: np.ndarray
    p_noisy: np.ndarray
    unequal: np.ndarray


def pooled(values: np.ndarray, kept: np.ndarray) -> Error:
    """The error of the kept methods, those that are far noisier than the rest left out."""
    start, (kept, means, p) = kept, _stand_out(values, kept)
    fit = additive(values, kept)
    unequal = _equal_variances(values, kept, fit)
    return Error(fit, kept, start & ~kept, np.where(kept, fit.means, means), p, unequal)


def additive(values: np.ndarray, kept: np.ndarray) -> Fit:
    """Least squares of value = method + block + error, the methods eliminated."""
    here = ~np.isnan(values) & kept[..., None, :]
    x, w = np.where(here, values, 0.0), here.astype(float)
    n = w.sum(-2)
    share = w / np.maximum(n, 1)[..., None, :]
    normal = w.sum(-1)[..., None] * np.eye(w.shape[-2]) - share @ np.swapaxes(w, -1, -2)
    inverse, rank = _inverse(normal)
    totals = x.sum(-1) - np.einsum("...bm,...m->...b", share, x.sum(-2))
    used = here.any(-1)
    blocks = np.einsum("...bc,...c->...b", inverse, totals)
    centre = (blocks * used).sum(-1) / np.maximum(used.sum(-1), 1)
    blocks = np.where(used, blocks - centre[..., None], 0.0)
    means = np.where(n > 0, _mean(x - blocks[..., None], w), np.nan)
    left = (x - np.nan_to_num(means)[..., None, :] - blocks[..., None]) * w
    df = (w.sum((-1, -2)) - (n > 0).sum(-1)).astype(int) - rank
    variance = np.where(df > 0, (left**2).sum((-1, -2)) / np.maximum(df, 1), np.nan)
    return Fit(blocks, inverse, means, np.where(variance < ZERO, 0.0, variance), np.maximum(df, 0))


def excess(values: np.ndarray, kept: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Method i beside the kept others: (its mean adjusted by their block effects, p that it is no noisier).

    An F test of its variance about their block effects, exact without gaps. NaN where the others share no block with
    it, or leave no error to compare with.
    """
    others = kept & (np.arange(values.shape[-1]) != i)
    fit = additive(values, others)
    count = (~np.isnan(values) & others[..., None, :]).sum(-1)
    there = ((count > 0) & ~np.isnan(values[..., i])).astype(float)
    n = there.sum(-1)
    left = np.nan_to_num(values[..., i]) - fit.blocks
    mean = np.where(n > 0, _mean(left[..., None], there[..., None])[..., 0], np.nan)
    squares = (there * (left - np.nan_to_num(mean)[..., None]) ** 2).sum(-1)
    spread = 1 + (there / np.maximum(count, 1)).sum(-1) / np.maximum(
        n, 1
    )  # the block effects have an error too
    testable = (n > 1) & (fit.variance > 0)
    ratio = squares / np.maximum(n - 1, 1) / np.where(testable, fit.variance * spread, 1.0)
    return mean, np.where(testable, distributions.f.sf(ratio, n - 1, fit.df), np.nan)


def _stand_out(values: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(those that stay; mean and p of each method beside them): the noisiest goes first, then that of the rest."""
    while True:
        beside = [excess(values, kept, i) for i in range(values.shape[-1])]
        means, p = (np.stack(part, -1) for part in zip(*beside, strict=True))
        own = np.where(kept & (kept.sum(-1) > 2)[..., None], np.nan_to_num(p, nan=1.0), 1.0)
        worst = np.eye(values.shape[-1], dtype=bool)[own.argmin(-1)]
        drop = worst & (own < NOISY_LEVEL / np.maximum(kept.sum(-1), 1)[..., None])
        if not drop.any():
            return kept, means, p
        kept = kept & ~drop


def _equal_variances(values: np.ndarray, kept: np.ndarray, fit: Fit) -> np.ndarray:
    """Bartlett's p on what the blocks leave of each method.

    Identical runs have no logarithm and are passed over; NaN for fewer than three methods that vary.
    """
    here = (~np.isnan(values) & kept[..., None, :]).astype(float)
    left = np.nan_to_num(values) - fit.blocks[..., None]
    df = here.sum(-2) - 1
    own = (here * (left - _mean(left, here)[..., None, :]) ** 2).sum(-2) / np.maximum(df, 1)
    counts = np.where((df > 0) & (own > ZERO), df, 0.0)
    k, total = (counts > 0).sum(-1), counts.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counts > 0, np.log(np.maximum(own, ZERO)), 0.0)
        raw = total * np.log((counts * own).sum(-1) / total) - (counts * logs).sum(-1)
        inverse = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0).sum(-1)
        scaled = raw / (1 + (inverse - 1 / total) / (3 * (k - 1)))
    return np.where(k > 2, distributions.chi2.sf(scaled, k - 1), np.nan)


def _mean(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Mean over blocks where w is 1; 0 where it is nowhere."""
    return (x * w).sum(-2) / np.maximum(w.sum(-2), 1)


def _inverse(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pseudoinverse and rank of symmetric matrices [..., b, b]."""
    values, vectors = np.linalg.eigh(normal)
    positive = values > 1e-9 * np.maximum(values[..., -1:], 1.0)
    scaled = vectors * np.where(positive, 1 / np.where(positive, values, 1.0), 0.0)[..., None, :]
    return scaled @ np.swapaxes(vectors, -1, -2), positive.sum(-1)
