"""Component ablation: a method without some of its terms against the whole method, paired by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kdbench.report import markdown as pipes
from kdbench.report.figures import forest
from kdbench.report.figures.sheet import Drawn, Sheet
from kdbench.report.figures.sweep import params, show
from kdbench.report.leaderboard import Board, board, level
from kdbench.report.tables import Table

Params = Mapping[str, Any]


def component(full: Params, own: Params, zeroable: Sequence[str]) -> str | None:
    """What is left out of the method: 'without a, b', 'only c', 'mode=x', or a mix; '' for the full one.

    zeroable: the numeric fields that some run of the method sets to 0. 'only c': all of them but c are 0 (where
    they are three or more; of two, 'without' says it). None where a number is changed to another one: a value of
    a sweep, not a component.
    """
    changed = {key: own.get(key) for key in sorted({*full, *own}) if own.get(key) != full.get(key)}
    off = [key for key in zeroable if key in changed and _zero(changed[key])]
    others = {key: value for key, value in changed.items() if key not in off}
    if any(_numeric(value) or _numeric(full.get(key)) for key, value in others.items()):
        return None
    left = [key for key in zeroable if key not in off and not _zero(full.get(key))]
    words = [f"{key}={'unset' if value is None else show(value)}" for key, value in others.items()]
    if off and len(left) == 1 and len(off) > 1:
        words.insert(0, f"only {left[0]}")
    elif off:
        words.insert(0, f"without {', '.join(off)}")
    return " ".join(words)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _zero(value: Any) -> bool:
    return _numeric(value) and value == 0


def boards(tables: Sequence[Table], method: str, baseline: str) -> list[Board]:
    """The full method and its components, by label 'method' and 'method without a', as boards against the full.

    The suite's ``baseline`` is among them, to show what is left of the gain. Full: the runs with the suite's
    own settings; components are recognised by their parameters (`component`) and are of the same version. Tables
    and pairs without a component are left out.
    """
    ablated = (_components(table, method, baseline) for table in tables)
    return [board(table, method) for table in ablated if table is not None]


def _components(table: Table, method: str, baseline: str) -> Table | None:
    rows = table.rows[(table.rows["method"] == method) & ~table.rows["label"].isin(table.codes)]
    full = rows[rows["label"] == method].drop_duplicates("pair")
    if len(full) == 0 or len(rows) == 0 or rows["label"].nunique() < 2:
        return None
    usual = dict(zip(full["pair"], full["params"].map(params), strict=True))
    rows = rows[rows["pair"].isin(list(usual)) & rows["method_version"].isin(full["method_version"])]
    own = rows["params"].map(params)
    pairs = list(zip([usual[pair] for pair in rows["pair"]], own, strict=True))
    zeroable = sorted(
        {k for f, o in pairs for k in o if _zero(o[k]) and _numeric(f.get(k)) and not _zero(f[k])}
    )
    names = pd.Series([component(f, o, zeroable) for f, o in pairs], rows.index, dtype=object)
    if not names.fillna("").any():
        return None
    parts = rows[names.notna()].assign(label=(method + " " + names[names.notna()]).str.strip())
    base = table.rows[(table.rows["label"] == baseline) & (baseline != method)]
    whole = pd.concat([parts, base])
    ablated = parts["pair"][parts["label"] != method].unique()
    return dataclasses.replace(table, rows=whole[whole["pair"].isin(ablated)], set_aside=0)


def draw(data: pd.DataFrame, sheet: Sheet, method: str) -> Drawn:
    """The forest plot of these boards (data: `forest.frame`): left of 0 is what a component was worth."""
    reading = (
        f"Left of 0: worse than {method} with all its components. 'only x': all other weights that some run sets to 0 "
        "are 0."
    )
    return forest.draw(data, sheet, method, [reading, forest.READING])


def markdown(boards: Sequence[Board], method: str, footer: Sequence[str]) -> str:
    """A table per board: the components, their differences over the common pairs and the accuracy on each pair."""
    parts = []
    for one in boards:
        pairs = one.table.pairs
        numbers = one.entries[["mean", "std", "n"]]
        lines = []
        for label, row in one.summary.iterrows():
            entries = level(numbers, "label", str(label)).loc[pairs].to_numpy()
            delta = "full" if label == method else pipes.interval(row["delta"], row["low"], row["high"])
            lines.append([str(label), delta, *(pipes.spread(*entry) for entry in entries)])
        over = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
        parts += [
            f"## {one.table.heading}",
            pipes.pipes(["component", f"Δ to full [95%], {over}", *pairs], lines),
        ]
    parts.append("Δ: paired by seed, in points. Entries: mean ± std (seeds) of top-1, last epoch.")
    return pipes.page(f"{method}: components", parts, footer)
