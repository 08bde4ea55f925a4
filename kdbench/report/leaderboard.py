"""One table's numbers: what each method reaches on each pair, and how it compares with the baseline.

An entry is one method on one pair. The rules that decide (who is bold, which differences are shown) are those of
`kdbench.results.statistics`; this module hands them the runs and lays out what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdbench.report import costs
from kdbench.report.costs import APART, COSTS
from kdbench.report.metrics import TOP1, Metric
from kdbench.report.tables import Table
from kdbench.results.statistics import summary as stats
from kdbench.results.statistics.baseline import minus, record
from kdbench.results.statistics.best import Best, best
from kdbench.results.statistics.blocks import COLLAPSED, POOLED, Pool, collapsed_runs, pool
from kdbench.results.statistics.incomplete import complete_block, with_failed
from kdbench.results.statistics.pairs import Alike, correlations, pairs_alike, these_pairs, with_plain_means
from kdbench.results.statistics.power import detects
from kdbench.utils.status import Status

DIFFERENCE = ["delta", "se", "df", "low", "high", "p", "p_family"]
# with the limits, which a change of sign exchanges
SIGNED = ("mean", "delta", ("low", "high"), ("alike_low", "alike_high"))


class Power(NamedTuple):
    """The pooled error of one run (NaN: none), of how many methods, and the number of units: seeds or pairs."""

    sd: float
    methods: int
    n: int
    unit: str

    @property
    def detectable(self) -> float:
        """The smallest true difference that the table would show."""
        return detects(self.sd, self.methods, self.n)


@dataclass(frozen=True)
class Board:
    """The numbers of one leaderboard.

    entries: index (label, pair); mean, std, n of the metric; diverged = seeds that diverged; skipped = the reason or
    ''; bold; state of the method in the pair's pool (see `statistics.blocks`); DIFFERENCE to the baseline over shared
    seeds, delta_n of them, error = which error its interval has; step_cost and alone_cost (see `costs.COSTS`),
    cost_apart = the baseline was timed in another cohort.
    summary: index label, best first; covered = pairs with a result; rank and mean over ``common``; DIFFERENCE over the
    pairs that the method shares with the baseline, the pairs held fixed (error from seeds), delta_n = seeds of the one
    pair or number of pairs; alike_low, alike_high, alike_p: the same for pairs like these (error from pairs), NaN for
    one pair and where some seeds of a pair diverged; record = (wins, ties, losses) or None; step_cost and alone_cost
    over pairs, cost_apart = it is so on some pair. NaN: no value.
    common: the largest complete block of pairs, behind the ranks. baseline: its name; has_baseline: whether a
    finished run of it, with the suite's own settings, is there.
    best: pair -> who is bold and why. pools: pair -> the error behind its differences, in which higher is better.
    alike: the method x pair analysis, None for one pair. failed: label -> what
    failed runs change (`statistics.incomplete.with_failed`), of methods that have some; empty unless of top-1.
    power: what the table could show.
    """

    table: Table
    baseline: str
    has_baseline: bool
    entries: pd.DataFrame
    summary: pd.DataFrame
    common: list[str]
    best: Mapping[str, Best]
    pools: Mapping[str, Pool]
    alike: Alike | None
    failed: pd.DataFrame
    power: Power
    metric: Metric

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the summary."""
        return list(self.summary.index)

    def over_pairs(self) -> bool:
        """Whether the summary's differences are over pairs (else over the seeds of the one pair)."""
        return len(self.table.pairs) > 1


def board(table: Table, baseline: str, metric: Metric = TOP1) -> Board:
    """All numbers of a table against the method ``baseline`` with the suite's own settings.

    All rules are those of a metric of which more is better: they see one of which less is better with its sign changed.
    """
    scores = table.wide(metric.column) * metric.sign
    base = baseline if baseline in scores.columns and scores[baseline].notna().any() else None
    index = pd.MultiIndex.from_product([table.labels, table.pairs], names=["label", "pair"])
    entries = _counted(table, scores, index)
    found = _compared(table, scores, entries, base, metric)
    entries = entries.join(found.marks).join(found.differences)
    fill = {"bold": False, "state": "", "delta_n": 0, "error": ""}
    entries = entries.fillna(fill).astype({"bold": bool, "delta_n": int})
    ratios = costs.ratios(table, baseline) if base else {}
    for name in (*COSTS, APART):
        entries[name] = ratios[name].unstack().reindex(index) if ratios else np.nan
    entries[APART] = entries[APART].eq(True)
    block = complete_block(_completed(entries).unstack("label"))
    summary = pd.DataFrame(index=pd.Index(table.labels, name="label"))
    summary["covered"] = _completed(entries).groupby("label").sum()
    summary["rank"] = _ranks(entries, block.pairs, block.methods)
    summary["mean"] = _means(entries, block.pairs, block.methods)
    alike = _alike(table, entries, base)
    summary = summary.join(_against(table, entries, base, alike))
    summary[APART] = summary[APART].eq(True)
    summary = summary.sort_values(
        ["rank", "delta", "label"], ascending=[True, False, True], na_position="last"
    )
    return Board(
        table,
        baseline,
        base is not None,
        _natural(entries, metric),
        _natural(summary, metric),
        block.pairs,
        found.best,
        found.pools,
        alike,
        _failed(table, scores, base) if metric is TOP1 else pd.DataFrame(),
        _power(found.best, alike, _usual_seeds(entries, len(scores))),
        metric,
    )


def _natural(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Numbers in which higher is better -> as the metric is written."""
    if metric.higher:
        return frame
    columns = [(one, one) if isinstance(one, str) else one for one in SIGNED]
    changed: dict[str, pd.Series] = {}
    for first, second in columns:
        if first in frame:
            changed |= {first: 0.0 - frame[second], second: 0.0 - frame[first]}
    return frame.assign(**changed)


def _counted(table: Table, scores: pd.DataFrame, index: pd.MultiIndex) -> pd.DataFrame:
    """What the entries' runs reached, and those that have no result."""
    entries = _by_pair(scores).reindex(index)
    entries["n"] = entries["n"].fillna(0).astype(int)
    entries["diverged"] = _of(table, Status.DIVERGED)["seed"].count().reindex(index, fill_value=0)
    reasons = _of(table, Status.SKIPPED)["error"].first().replace("", "no reason recorded")
    entries["skipped"] = reasons.reindex(index).fillna("")
    return entries


class _Compared(NamedTuple):
    """The comparisons within each pair: of methods with the best and with the baseline, and the errors behind them."""

    best: dict[str, Best]
    pools: dict[str, Pool]
    marks: pd.DataFrame
    differences: pd.DataFrame


def _compared(
    table: Table, scores: pd.DataFrame, entries: pd.DataFrame, baseline: str | None, metric: Metric
) -> _Compared:
    yardsticks, pools, marks, differences = {}, {}, {}, {}
    collapsed = {} if metric is TOP1 else _collapsed(table)
    chance, swept = table.chance if metric is TOP1 else None, table.swept
    for pair, runs in _runs(scores):
        diverged = list(level(entries, "pair", pair).query("diverged > 0").index)
        failed = [*diverged, *collapsed.get(pair, [])]
        yardsticks[pair] = best(runs, [*failed, *swept], chance)
        pools[pair] = pool(runs, failed, chance)
        states = yardsticks[pair].states
        states = states.mask(states.index.isin(collapsed.get(pair, [])), COLLAPSED)
        marks[pair] = pd.DataFrame({"bold": yardsticks[pair].bold, "state": states})
        if baseline is not None and baseline in runs.columns:
            differences[pair] = minus(pools[pair], baseline).rename(columns={"n": "delta_n"})
    return _Compared(
        yardsticks,
        pools,
        _stacked(marks, ["bold", "state"]),
        _stacked(differences, [*DIFFERENCE, "delta_n", "error"]),
    )


def _collapsed(table: Table) -> dict[str, list[str]]:
    """pair -> methods with a run that collapsed, which its top-1 tells."""
    return {
        pair: list(runs.columns[collapsed_runs(runs, table.chance).any()])
        for pair, runs in _runs(table.wide())
    }


def _runs(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """[seed x label] of each pair that has a value, methods without one left out."""
    return [
        (str(pair), runs.droplevel("pair").dropna(axis=1, how="all"))
        for pair, runs in scores.dropna(how="all").groupby("pair")
    ]


def _stacked(by_pair: Mapping[str, pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """pair -> frame [label x columns] as one frame with the index (label, pair)."""
    parts = {pair: frame[columns] for pair, frame in by_pair.items()}
    if not parts:
        empty = pd.MultiIndex.from_arrays([[], []], names=["label", "pair"])
        return pd.DataFrame(index=empty, columns=columns)
    return pd.concat(parts, names=["pair", "label"]).swaplevel()


def level(entries: pd.DataFrame, name: str, value: str) -> pd.DataFrame:
    """The entries of one label, by pair, or those of one pair, by label."""
    return entries[entries.index.get_level_values(name) == value].droplevel(name)


def _of(table: Table, status: str) -> pd.api.typing.DataFrameGroupBy:
    return table.rows[table.rows["status"] == status].groupby(["label", "pair"])


def _by_pair(scores: pd.DataFrame) -> pd.DataFrame:
    """[(pair, seed) x label] -> (label, pair): mean, std, n over seeds."""
    groups = scores.groupby("pair")
    parts = {"mean": groups.mean(), "std": groups.std(), "n": groups.count()}
    return pd.DataFrame({name: part.unstack() for name, part in parts.items()}).rename_axis(["label", "pair"])


def _completed(entries: pd.DataFrame) -> pd.Series:
    return (entries["n"] > 0) | (entries["diverged"] > 0)


def _ranks(entries: pd.DataFrame, pairs: list[str], methods: list[str]) -> pd.Series:
    if not pairs:
        return pd.Series(dtype=float)
    means = entries["mean"].where(entries["diverged"] == 0, -np.inf)
    return stats.mean_ranks(means.unstack("label").loc[pairs, methods])


def _means(entries: pd.DataFrame, pairs: list[str], methods: list[str]) -> pd.Series:
    """Mean over pairs of the entries' means; NaN where seeds diverged."""
    if not pairs:
        return pd.Series(dtype=float)
    means = entries["mean"].where(entries["diverged"] == 0).unstack("label").loc[pairs, methods]
    return means.mean(skipna=False)


def _alike(table: Table, entries: pd.DataFrame, baseline: str | None) -> Alike | None:
    """The analysis over pairs, of differences over shared seeds; the unit is the teacher where pairs share one.

    None where there are no two units.
    """
    if baseline is None or len(table.pairs) < 2 or table.teacher:
        return None
    sound = (entries["diverged"] == 0).unstack("label").loc[table.pairs]
    apart = entries["delta"].unstack("label").loc[table.pairs]
    apart[baseline] = np.where(apart.notna().any(axis=1), 0.0, np.nan)
    means = apart.where(sound).dropna(axis=1, how="all")
    if baseline not in means.columns:
        return None
    teachers = table.rows.drop_duplicates("pair").set_index("pair")["teacher"].reindex(means.index)
    shared = teachers.duplicated().any() and teachers.nunique() > 1
    return pairs_alike(means, baseline, teachers if shared else None)


def _against(table: Table, entries: pd.DataFrame, baseline: str | None, alike: Alike | None) -> pd.DataFrame:
    """The summary's columns that compare with the baseline."""
    columns = [*DIFFERENCE, "delta_n", "alike_low", "alike_high", "alike_p", "record", *COSTS, APART]
    if baseline is None:
        return pd.DataFrame(columns=columns)
    compared = entries.drop(index=baseline, level="label")
    if len(table.pairs) > 1:
        couples = {label: (label, baseline) for label in compared.index.unique("label")}
        means = these_pairs(compared, correlations(table.overlaps, couples))
        result = with_plain_means(means, compared).rename(columns={"n": "delta_n"})
    else:
        result = compared.droplevel("pair")[[*DIFFERENCE, "delta_n"]]
    if alike is not None:
        spread = alike.cells[["low", "high", "decided"]].set_axis(
            ["alike_low", "alike_high", "alike_p"], axis=1
        )
        result = result.join(spread)
        # a pair with diverged seeds is one of the difference, and none of the spread
        mixed = (compared["diverged"] > 0) & compared["delta"].notna()
        failed = mixed.groupby(level="label").any()
        result.loc[failed[failed].index, spread.columns] = np.nan
    result["record"] = _records(entries, baseline).reindex(result.index)
    return result.join(costs.over_pairs(entries, baseline), how="outer").reindex(columns=columns)


def _records(entries: pd.DataFrame, baseline: str) -> pd.Series:
    """label -> (wins, ties, losses) by each pair's interval; None where no pair has one.

    A diverged entry loses, and wins where only the baseline's diverged.
    """
    lost = (entries["diverged"] > 0).unstack("label")
    won = pd.DataFrame(dict.fromkeys(lost, lost[baseline]))
    low, high = (
        entries[key].unstack("label").mask(lost, -np.inf).mask(won, np.inf).mask(lost & won, 0.0)
        for key in ("low", "high")
    )
    counts = {label: record(low[label], high[label])[:3] for label in low}
    return pd.Series({label: each if sum(each) else None for label, each in counts.items()}, dtype=object)


def _usual_seeds(entries: pd.DataFrame, runs: int) -> int:
    """The number of seeds that most differences to the baseline are over; ``runs`` where there is none."""
    shared = entries.loc[entries["delta_n"] > 0, "delta_n"]
    return int(shared.median()) if len(shared) else runs


def _power(best_of: Mapping[str, Best], alike: Alike | None, runs: int) -> Power:
    """Over pairs where they were analysed, else over the seeds of the one pair (``runs`` of them)."""
    if alike is not None:
        states = alike.pool.methods["state"]
        return Power(alike.pool.sd, int((states == POOLED).sum()), alike.units, "pairs")
    if len(best_of) != 1:
        return Power(np.nan, 0, 0, "seeds")
    (only,) = best_of.values()
    return Power(only.sd, int((only.states == POOLED).sum()), runs, "seeds")


def _failed(table: Table, scores: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """Methods with diverged or collapsed runs, and the baseline's too: their difference without and with these."""
    if baseline is None:
        return pd.DataFrame()
    diverged = table.rows[table.rows["status"] == Status.DIVERGED].assign(failed=True)
    marks = stats.wide(diverged, "failed", index=["pair", "seed"])
    whole, marks = scores.align(marks)
    failed = marks.notna()
    for _, runs in whole.groupby("pair"):
        failed.loc[runs.index] |= collapsed_runs(runs, table.chance)
    if not failed.to_numpy().any():
        return pd.DataFrame()
    compared = with_failed(whole, failed, baseline, table.chance)
    return compared[(compared["failed"] > 0) | bool(failed[baseline].any())]
