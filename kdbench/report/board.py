"""One table's numbers: what each method reaches on each pair, and how it compares with the baseline.

A cell is one method on one pair. Anything said over several pairs uses the same *common pairs* for every
method, or is not said: a mean over other pairs would compare pairs, not methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdbench import stats
from kdbench.report.frames import Table

COSTS = {
    "step_cost": "epoch_s",
    "alone_cost": "alone_s",
}  # multiples of the baseline's seconds: those of which column


@dataclass(frozen=True)
class Board:
    """The numbers of one leaderboard.

    cells: index (label, pair); mean, std, n of top-1; diverged = seeds that diverged; skipped = the reason or
    ''; bold; delta, low, high, delta_std, delta_n against the baseline over shared seeds.
    summary: index label, best first; covered = pairs with a result, rank, delta, low, high, delta_std,
    delta_n, p (Holm), record = (wins, ties, losses) or None, step_cost and alone_cost (see COSTS), detectable.
    NaN: cannot be had.
    common: the pairs behind the summary. baseline: the method asked for; has_baseline: whether a finished run
    of it, with the suite's own settings, is there.
    """

    table: Table
    baseline: str
    has_baseline: bool
    cells: pd.DataFrame
    summary: pd.DataFrame
    common: list[str]

    @property
    def labels(self) -> list[str]:
        return list(self.summary.index)

    def over_pairs(self) -> bool:
        """Whether intervals in the summary are over pairs (else over the seeds of the one common pair)."""
        return len(self.common) > 1


def board(table: Table, baseline: str) -> Board:
    """All numbers of a table against the method ``baseline`` with the suite's own settings."""
    scores = table.wide()
    base = baseline if baseline in scores.columns else None
    cells = _cells(table, scores, base)
    common, ranked = _common_pairs(cells)
    summary = pd.DataFrame(index=pd.Index(table.labels, name="label"))
    summary["covered"] = _completed(cells).groupby("label").sum()
    summary["rank"] = _ranks(cells, common, ranked)
    compared = [label for label in ranked if base in ranked and label != base] if common else []
    summary = summary.join(_against(table, cells, common, base, compared))
    summary = summary.sort_values(["rank", "label"], na_position="last")
    return Board(table, baseline, base is not None, cells, summary, common)


def _cells(table: Table, scores: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([table.labels, table.pairs], names=["label", "pair"])
    cells = _by_pair(scores).reindex(index)
    cells["n"] = cells["n"].fillna(0).astype(int)
    cells["diverged"] = _of(table, "diverged")["seed"].count().reindex(index, fill_value=0)
    reasons = _of(table, "skipped")["error"].first().replace("", "no reason recorded")
    cells["skipped"] = reasons.reindex(index).fillna("")
    cells["bold"] = _bold(scores, cells["diverged"] > 0).reindex(index, fill_value=False)
    differences = stats.paired(scores, baseline) if baseline else scores * np.nan
    delta = _by_pair(differences).reindex(index)
    half = stats.half_width(delta["std"], delta["n"])
    return cells.assign(
        delta=delta["mean"],
        low=delta["mean"] - half,
        high=delta["mean"] + half,
        delta_std=delta["std"],
        delta_n=delta["n"].fillna(0).astype(int),
    )


def level(cells: pd.DataFrame, name: str, value: str) -> pd.DataFrame:
    """The cells of one label, by pair, or those of one pair, by label."""
    return cells[cells.index.get_level_values(name) == value].droplevel(name)


def _of(table: Table, status: str) -> pd.api.typing.DataFrameGroupBy:
    return table.rows[table.rows["status"] == status].groupby(["label", "pair"])


def _by_pair(scores: pd.DataFrame) -> pd.DataFrame:
    """[(pair, seed) x label] -> (label, pair): mean, std, n over seeds."""
    groups = scores.groupby("pair")
    parts = {"mean": groups.mean(), "std": groups.std(), "n": groups.count()}
    return pd.DataFrame({name: part.unstack() for name, part in parts.items()}).rename_axis(["label", "pair"])


def _bold(scores: pd.DataFrame, diverged: pd.Series) -> pd.Series:
    """The best of each pair and all whose paired 95 % interval to it contains 0; (label, pair) -> bool.

    Only methods with two seeds or more and no diverged seed can be best; where nothing can be compared with
    the best, nothing is bold.
    """
    marks: dict[tuple[str, str], bool] = {}
    for pair, runs in scores.groupby("pair"):
        sound = ~diverged.xs(pair, level="pair").reindex(runs.columns)
        means = runs.mean().where((runs.count() > 1) & sound)
        if means.notna().sum() < 2:
            continue
        gap = runs.sub(runs[means.idxmax()], axis=0)
        reach = gap.mean().abs() <= stats.half_width(gap.std(), gap.count())
        comparable = means.notna() & (gap.count() > 1)
        if comparable.sum() > 1:
            marks |= {(str(label), str(pair)): True for label in runs.columns[reach & comparable]}
    return pd.Series(marks, dtype=bool)


def _completed(cells: pd.DataFrame) -> pd.Series:
    return (cells["n"] > 0) | (cells["diverged"] > 0)


def _common_pairs(cells: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(pairs that all ranked methods have completed, ranked methods = those with half of the pairs)"""
    done = _completed(cells).unstack("pair")
    ranked = done[done.mean(axis=1) >= 0.5]
    return [str(pair) for pair in ranked.columns[ranked.all()]] if len(ranked) else [], list(ranked.index)


def _ranks(cells: pd.DataFrame, common: list[str], ranked: list[str]) -> pd.Series:
    if not common:
        return pd.Series(dtype=float)
    means = cells["mean"].where(cells["diverged"] == 0, -np.inf)
    return stats.mean_ranks(means.unstack("label").loc[common, ranked])


def _against(
    table: Table, cells: pd.DataFrame, common: list[str], baseline: str | None, compared: list[str]
) -> pd.DataFrame:
    """The summary's columns that compare with the baseline, for the methods ``compared``."""
    columns = ["delta", "low", "high", "delta_std", "delta_n", "p", "record", *COSTS, "detectable"]
    if baseline is None or not compared:
        return pd.DataFrame(columns=columns)
    base = level(cells, "label", baseline).loc[common]
    lines = {}
    for label in compared:
        own = level(cells, "label", label).loc[common]
        lines[label] = {**_difference(own, base), "record": _record(own, base)}
    result = pd.DataFrame.from_dict(lines, orient="index")
    result["p"] = stats.holm(result["p"])
    costs = _costs(table, common, baseline)
    return result.join(costs[costs.index.isin([*compared, baseline])], how="outer")[columns]


def _costs(table: Table, common: list[str], baseline: str) -> pd.DataFrame:
    """label -> COSTS: the geometric mean, over the common pairs, of the ratio to the baseline's seconds."""
    machine, found = table.wide("machine"), {}
    for name, seconds in COSTS.items():
        ratio = stats.cost_ratio(table.wide(seconds), machine, baseline).reindex(common)
        found[name] = np.exp(np.log(ratio).mean(skipna=False))
    return pd.DataFrame(found)


def _difference(own: pd.DataFrame, base: pd.DataFrame) -> dict:
    """Over the common pairs, or over the seeds where there is one; all NaN where a seed diverged."""
    pairs = own["delta"].where((own["diverged"] == 0) & (base["diverged"] == 0))
    if len(pairs) > 1:
        whole = pairs if pairs.notna().all() else pairs * np.nan
        mean, std, n = stats.summary(whole)
    else:
        mean, std, n = pairs.iloc[0], own["delta_std"].iloc[0], int(own["delta_n"].iloc[0])
    half = float(stats.half_width(std, n))
    test = stats.sign_flip(pairs)
    return {
        "delta": mean,
        "low": mean - half,
        "high": mean + half,
        "delta_std": std,
        "delta_n": n,
        "p": np.nan if test is None else test,
        "detectable": np.nan if np.isnan(mean) else stats.detectable(std, n),
    }


def _record(own: pd.DataFrame, base: pd.DataFrame) -> tuple[int, int, int] | None:
    """Wins, ties and losses; the seed std is the two methods' pooled one; a diverged cell loses."""
    lost, won = own["diverged"] > 0, base["diverged"] > 0
    delta = own["delta"].mask(lost, -np.inf).mask(won, np.inf).mask(lost & won, 0.0)
    pooled = np.sqrt(pd.concat([own["std"] ** 2, base["std"] ** 2], axis=1).mean(axis=1))
    return stats.wins_ties_losses(delta, pooled.mask(lost & won, 0.0))
