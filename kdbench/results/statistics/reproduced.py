"""Ours beside a published number: agrees, differs, or undecided.

*differs*: the published value is outside the interval that predicts it from our runs, with its own error, adjusted by
Holm over the whole table. *agrees*: the true difference is shown to be within MARGIN points (two one-sided tests).
Neither: *undecided*; few runs on either side can show nothing. Where both hold, the difference is real and within the
margin: agrees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as distributions

from kdbench.results.statistics.critical import holm

MARGIN = 0.5  # points
AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
BEST, UNKNOWN = "best", "unknown"


class Noise(NamedTuple):
    """Standard deviation of one run about its cell's mean, pooled over the table, and its degrees of freedom."""

    sd: float
    df: int


def seed_noise(runs: pd.DataFrame) -> Noise:
    """Pooled over cells; ``runs``: columns cell (any label), value; NaN, 0 where no cell has two runs.

    The shift that a seed gives to all methods counts here: a published number ran on other seeds. Leave out collapsed
    and diverged runs and the cells of far noisier methods (blocks.pool) before.
    """
    groups = runs.dropna(subset="value").groupby("cell")["value"]
    df = (groups.count() - 1).clip(lower=0)
    total = int(df.sum())
    squares = (groups.var(ddof=1).fillna(0.0) * df).sum()
    return Noise(float(np.sqrt(squares / total)) if total else np.nan, total)


def verdicts(cells: pd.DataFrame, noise: Noise, margin: float = MARGIN, alpha: float = 0.05) -> pd.DataFrame:
    """One line a published number, all of one table (Holm is over them).

    ``cells``: n = our runs, last and best = our means at the last epoch and at the best one (best NaN: not every epoch
    after the last milestone was evaluated), value, std, runs (NaN: not printed), rule. Result, same index: ours = by
    the rule of the number; delta = ours - value; se, df; low, high = where ``value`` is predicted (level 1 - alpha,
    of this number alone); p, p_holm = that they are the same; p_margin = that they are ``margin`` or more apart;
    verdict.
    A rule that is not known is bracketed by both: it differs or agrees only if both epochs do, and the one that
    decides less is shown. verdict '' where there is no error or no value to compare.
    """
    last, best = (_tests(cells, cells[key], noise, margin, alpha) for key in ("last", "best"))
    unknown = cells["rule"] == UNKNOWN
    result = best.where(cells["rule"] == BEST, last).mask(unknown, _bracket(last, best))
    result["p_holm"] = holm(result["p"])
    result["verdict"] = np.select(
        [result["p"].isna(), result["p_margin"] <= alpha, result["p_holm"] <= alpha],
        ["", AGREES, DIFFERS],
        UNDECIDED,
    )
    return result


def _bracket(last: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """What holds by both epochs of ours; without a best one, what holds wherever above the last it may be."""
    result = last.mask(best["p"] > last["p"], best)
    one_side = (last["delta"] * best["delta"] > 0).where(best["delta"].notna(), last["delta"] > 0)
    agree = last["p_margin"].where(last["p_margin"] > best["p_margin"], best["p_margin"])
    return result.assign(p=result["p"].where(one_side | result["p"].isna(), 1.0), p_margin=agree)


def _tests(cells: pd.DataFrame, ours: pd.Series, noise: Noise, margin: float, alpha: float) -> pd.DataFrame:
    """Each number alone, against ``ours``."""
    se, df = _error(cells, noise)
    delta = ours - cells["value"]
    half = distributions.t.isf(alpha / 2, df) * se
    t = delta.abs() / se
    p = pd.Series(2 * distributions.t.sf(t, df), cells.index)
    p_margin = pd.Series(distributions.t.sf((margin - delta.abs()) / se, df), cells.index)
    limits = {"low": ours - half, "high": ours + half}
    return pd.DataFrame(
        {"ours": ours, "delta": delta, "se": se, "df": df, **limits, "p": p, "p_margin": p_margin}
    )


def _error(cells: pd.DataFrame, noise: Noise) -> tuple[pd.Series, pd.Series]:
    """Standard error of ours - published and its degrees of freedom (Satterthwaite where std and runs are printed).

    A published mean without a std has our noise. Without a number of runs it is taken for one run, which is wide
    enough for a printed std of three runs or more, itself then taken as known.
    """
    runs = cells["runs"].fillna(1.0).clip(lower=1)
    printed = cells["std"].notna()
    mine = noise.sd**2 / cells["n"].where(cells["n"] > 0)
    theirs = (cells["std"] ** 2).where(printed, noise.sd**2) / runs
    estimated = printed & (runs > 1)
    parts = mine**2 / max(noise.df, 1) + theirs**2 / (runs - 1).where(estimated, np.inf)
    mixed = (mine + theirs) ** 2 / parts.where(parts > 0)
    own = noise.df if noise.df else np.nan
    return np.sqrt(mine + theirs), mixed.where(estimated, own)
