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

from kdbench.report.tables import Table
from kdbench.results.statistics import summary as stats
from kdbench.results.statistics.baseline import against, record
from kdbench.results.statistics.best import Best, best
from kdbench.results.statistics.blocks import POOLED, collapsed_runs
from kdbench.results.statistics.incomplete import complete_block, with_failed
from kdbench.results.statistics.pairs import Alike, pairs_alike, these_pairs
from kdbench.results.statistics.power import detects
from kdbench.utils.status import Status

# multiples of the baseline's seconds: those of which column
COSTS = {"step_cost": "epoch_s", "alone_cost": "alone_s"}
APART = "cost_apart"
DIFFERENCE = ["delta", "se", "df", "low", "high", "p", "p_family"]


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

    entries: index (label, pair); mean, std, n of top-1; diverged = seeds that diverged; skipped = the reason or '';
    bold; state of the method in the pair's pool (see `statistics.blocks`); DIFFERENCE to the baseline over shared
    seeds, delta_n of them, error = which error its interval has.
    summary: index label, best first; covered = pairs with a result; rank over ``common``; DIFFERENCE over the pairs
    that the method shares with the baseline, the pairs held fixed (error from seeds), delta_n = seeds of the one pair
    or number of pairs; alike_low, alike_high, alike_p: the same for pairs like these (error from pairs), NaN for one
    pair; record = (wins, ties, losses) or None; step_cost and alone_cost (see COSTS), cost_apart = the baseline was
    timed in another cohort. NaN: no value.
    common: the largest complete block of pairs, behind the ranks. baseline: its name; has_baseline: whether a
    finished run of it, with the suite's own settings, is there.
    best: pair -> who is bold and why. alike: the method x pair analysis, None for one pair. failed: label -> what
    failed runs change (`statistics.incomplete.with_failed`), of methods that have some.
    power: what the table could show.
    """

    table: Table
    baseline: str
    has_baseline: bool
    entries: pd.DataFrame
    summary: pd.DataFrame
    common: list[str]
    best: Mapping[str, Best]
    alike: Alike | None
    failed: pd.DataFrame
    power: Power

    @property
    def labels(self) -> list[str]:
        """The labels in the order of the summary."""
        return list(self.summary.index)

    def over_pairs(self) -> bool:
        """Whether the summary's differences are over pairs (else over the seeds of the one pair)."""
        return len(self.table.pairs) > 1


def board(table: Table, baseline: str) -> Board:
    """All numbers of a table against the method ``baseline`` with the suite's own settings."""
    scores = table.wide()
    base = baseline if baseline in scores.columns else None
    entries, yardsticks = _entries(table, scores, base)
    block = complete_block(_completed(entries).unstack("label"))
    summary = pd.DataFrame(index=pd.Index(table.labels, name="label"))
    summary["covered"] = _completed(entries).groupby("label").sum()
    summary["rank"] = _ranks(entries, block.pairs, block.methods)
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
        entries,
        summary,
        block.pairs,
        yardsticks,
        alike,
        _failed(table, scores, base),
        _power(yardsticks, alike, len(scores)),
    )


def _entries(
    table: Table, scores: pd.DataFrame, baseline: str | None
) -> tuple[pd.DataFrame, dict[str, Best]]:
    index = pd.MultiIndex.from_product([table.labels, table.pairs], names=["label", "pair"])
    entries = _by_pair(scores).reindex(index)
    entries["n"] = entries["n"].fillna(0).astype(int)
    entries["diverged"] = _of(table, Status.DIVERGED)["seed"].count().reindex(index, fill_value=0)
    reasons = _of(table, Status.SKIPPED)["error"].first().replace("", "no reason recorded")
    entries["skipped"] = reasons.reindex(index).fillna("")
    yardsticks, marks, differences = {}, {}, {}
    for pair, runs in _runs(scores):
        failed = list(level(entries, "pair", pair).query("diverged > 0").index)
        yardsticks[pair] = best(runs, [*failed, *table.swept], table.chance)
        marks[pair] = pd.DataFrame({"bold": yardsticks[pair].bold, "state": yardsticks[pair].states})
        if baseline is not None and baseline in runs.columns:
            shared = against(runs, baseline, failed, table.chance).cells
            differences[pair] = shared.rename(columns={"n": "delta_n"})
    entries = entries.join(_stacked(marks, ["bold", "state"]))
    entries = entries.join(_stacked(differences, [*DIFFERENCE, "delta_n", "error"]))
    fill = {"bold": False, "state": "", "delta_n": 0, "error": ""}
    return entries.fillna(fill).astype({"bold": bool, "delta_n": int}), yardsticks


def _runs(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """[seed x label] of each pair, methods without a run left out."""
    return [
        (str(pair), runs.droplevel("pair").dropna(axis=1, how="all")) for pair, runs in scores.groupby("pair")
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


def _alike(table: Table, entries: pd.DataFrame, baseline: str | None) -> Alike | None:
    """The analysis over pairs; the unit is the teacher where pairs share one."""
    if baseline is None or len(table.pairs) < 2:
        return None
    means = (
        entries["mean"]
        .where(entries["diverged"] == 0)
        .unstack("label")
        .loc[table.pairs]
        .dropna(axis=1, how="all")
    )
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
        result = these_pairs(compared).rename(columns={"pairs": "delta_n"})
        plain = compared["delta"].groupby("label")  # where no pair has an interval
        result["delta"] = result["delta"].fillna(plain.mean())
        result["delta_n"] = result["delta_n"].where(result["delta_n"] > 0, plain.count())
    else:
        result = compared.droplevel("pair")[[*DIFFERENCE, "delta_n"]]
    if alike is not None:
        spread = alike.cells[["low", "high", "decided"]].set_axis(
            ["alike_low", "alike_high", "alike_p"], axis=1
        )
        result = result.join(spread)
    base = level(entries, "label", baseline)
    result["record"] = pd.Series(
        {label: _record(level(entries, "label", label), base) for label in result.index}, dtype=object
    )
    return result.join(_costs(table, entries, baseline), how="outer").reindex(columns=columns)


def _record(own: pd.DataFrame, base: pd.DataFrame) -> tuple[int, int, int] | None:
    """Wins, ties and losses by each pair's interval; a diverged entry loses; None where no pair has an interval."""
    lost, won = own["diverged"] > 0, base["diverged"] > 0
    low, high = (
        own[key].mask(lost, -np.inf).mask(won, np.inf).mask(lost & won, 0.0) for key in ("low", "high")
    )
    counts = record(low, high)
    return counts[:3] if sum(counts[:3]) else None


def _costs(table: Table, entries: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """label -> COSTS: the geometric mean of the ratio to the baseline's seconds over the pairs that both have.

    cost_apart: on some pair no run was timed in one cohort with the baseline's.
    """
    machine, cohort, ratios = table.wide("machine"), table.wide("beside"), {}
    here = (entries["n"] > 0).unstack("label")
    shared = here.mul(here[baseline], axis=0)
    for name, seconds in COSTS.items():
        costs = stats.cost_ratio(table.wide(seconds), machine, cohort, baseline)
        logs = np.log(costs.ratio).reindex(index=shared.index, columns=shared.columns)
        known = (logs.notna() | ~shared).all()  # a pair that both have and no machine compares: no cost
        ratios[name] = np.exp(logs.where(shared).mean()).where(known)
        ratios[APART] = costs.apart.any()
    return pd.DataFrame(ratios)


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
