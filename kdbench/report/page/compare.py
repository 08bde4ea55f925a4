"""Every two methods of a board: their paired differences, by the rules of the differences to the baseline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from kdbench.report.leaderboard import Board
from kdbench.report.markdown import interval
from kdbench.results.statistics.baseline import differences, margin
from kdbench.results.statistics.blocks import Pool
from kdbench.results.statistics.pairs import correlations, mean_over_pairs, with_plain_means

OVER = ""  # in place of a pair: the mean over all pairs
Triangle = list[list[str]]  # [i][j - i - 1]: of label i minus label j, where i < j


def differences_of(board: Board, labels: Sequence[str]) -> dict[str, Triangle]:
    """pair -> label i of ``labels`` minus label j in words, with the 95% interval and the number of seeds.

    '' where there is none.

    Where the board has several pairs, `OVER` -> the mean over the pairs that both labels have, with their number.
    """
    parts = [_of_pair(pool, pair, board, labels) for pair, pool in board.pools.items()]
    if not parts:
        return {}
    cells = pd.concat(parts)
    named = {pair: own.droplevel("pair") for pair, own in cells.groupby(level="pair")}
    if board.over_pairs():
        named[OVER] = with_plain_means(mean_over_pairs(cells, _correlations(board, labels)), cells)
    return {pair: _triangle(frame, board, labels) for pair, frame in named.items()}


def _correlations(board: Board, labels: Sequence[str]) -> dict[int, pd.DataFrame]:
    """i * labels + j -> how the differences of label i and label j correlate from pair to pair."""
    every = itertools.combinations(enumerate(labels), 2)
    couples = {i * len(labels) + j: (one, other) for (i, one), (j, other) in every}
    return correlations(board.table.overlaps, couples)


def _of_pair(pool: Pool, pair: str, board: Board, labels: Sequence[str]) -> pd.DataFrame:
    """delta, se, df and n of every two labels; index (both = i * labels + j, pair)."""
    place = {label: i for i, label in enumerate(labels)}
    places = np.array([place[label] for label in pool.methods.index])
    baseline = pool.methods.index.get_indexer([board.baseline])[0]
    parts = [_minus(pool, base, places, baseline, len(place)) for base in range(len(places))]
    columns = dict(zip(("both", "delta", "se", "df", "n"), np.concatenate(parts, axis=1), strict=True))
    cells = pd.DataFrame(columns).astype({"both": int})
    return cells[cells["n"] > 0].assign(pair=pair).set_index(["both", "pair"])


def _minus(pool: Pool, base: int, places: np.ndarray, baseline: int, count: int) -> np.ndarray:
    """[both, delta, se, df, n] of differences to column ``base``: of all to the baseline, to others of those before.

    Which errors a difference takes depends a little on its base: so this is the table's own difference to the baseline.
    """
    apart, own = differences(pool.values, pool.error, base), places[base]
    first, columns = places < own, np.arange(len(places))
    both = np.where(first, places * count + own, own * count + places)
    delta = np.where(first, apart.delta, -apart.delta)
    rows = np.stack([both, delta, apart.se, apart.df, apart.n])
    return rows[:, columns != base if base == baseline else first & (columns != baseline)]


def _triangle(cells: pd.DataFrame, board: Board, labels: Sequence[str]) -> Triangle:
    texts = dict(_worded(cells, board))
    count = len(labels)
    return [[texts.get(i * count + j, "") for j in range(i + 1, count)] for i in range(count)]


def _worded(cells: pd.DataFrame, board: Board) -> Iterator[tuple[int, str]]:
    sign, form = board.metric.sign, board.metric.signed
    delta, half = 0.0 + sign * cells["delta"], margin(cells)
    for both, middle, reach, n in zip(cells.index, delta, half, cells["n"], strict=True):
        if not np.isnan(middle):
            yield int(both), f"{interval(middle, middle - reach, middle + reach, form)} ({n:.0f})"
