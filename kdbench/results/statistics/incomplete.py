"""Results with gaps: the largest complete block for ranks, and failed runs shown both ways.

A difference needs only the pairs that its two methods share (baseline.against, pairs.pairs_alike). Ranks need more:
every method on every pair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

MOST = 20_000  # sets of pairs that are looked at


class CompleteBlock(NamedTuple):
    """Pairs and methods, in the order of the table, such that every one of these methods has all of these pairs."""

    pairs: list[str]
    methods: list[str]


def complete_block(done: pd.DataFrame, with_method: str | None = None) -> CompleteBlock:
    """The block of the most cells in done [pair x method], bool; of equal ones that of more methods.

    ``with_method``: a method that must be in it (the baseline). Empty where no cell is done. Candidates are the pairs
    that some methods have in common: all of them, unless there are more than MOST.
    """
    have = {str(method): frozenset(np.flatnonzero(done[method].to_numpy(bool)).tolist()) for method in done}
    best: tuple[int, int, frozenset[int]] = (0, 0, frozenset())
    for pairs in _common(list(have.values())):
        methods = [method for method, own in have.items() if pairs <= own]
        if pairs and (with_method is None or with_method in methods):
            size = (len(pairs) * len(methods), len(methods))
            if size > best[:2]:
                best = (*size, pairs)
    chosen = best[2]
    methods = [method for method, own in have.items() if chosen and chosen <= own]
    return CompleteBlock([str(pair) for i, pair in enumerate(done.index) if i in chosen], methods)


def _common(sets: list[frozenset[int]]) -> list[frozenset[int]]:
    """All intersections of any of the sets, each once, in a fixed order."""
    blocks: dict[frozenset[int], None] = {}
    for one in sets:
        blocks |= dict.fromkeys([one, *(one & other for other in list(blocks))])
        if len(blocks) > MOST:
            break
    return list(blocks)


def with_failed(
    scores: pd.DataFrame, failed: pd.DataFrame, baseline: str, chance: float = 0.0
) -> pd.DataFrame:
    """What failed runs change: each method minus the baseline without them, and with them at chance level.

    ``scores``: [(pair, seed) x method], index level ``pair``; ``failed``: the same shape, bool: diverged or collapsed
    (blocks.collapsed_runs). Result: index method (without the baseline); without = mean over pairs of the mean paired
    difference of the runs that finished; robust = median over pairs of the difference of medians over seeds, a failed
    run counting as ``chance``; failed, runs = its own failed runs and all of its runs. Over the pairs that both have.
    """
    finished = scores.mask(failed)
    without = _minus(finished, baseline).groupby("pair").mean().mean()
    medians = scores.where(~failed, chance).groupby("pair").median()
    columns = {
        "without": without,
        "robust": _minus(medians, baseline).median(),
        "failed": failed.sum(),
        "runs": (scores.notna() | failed).sum(),
    }
    return pd.DataFrame(columns).drop(index=baseline)


def _minus(values: pd.DataFrame, baseline: str) -> pd.DataFrame:
    return values.sub(values[baseline], axis=0)
