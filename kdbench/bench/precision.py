"""What bf16 changes in the results: paired differences between runs that differ in nothing but the precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdbench import plan, stats
from kdbench.errors import KdbenchError
from kdbench.report import style
from kdbench.report.frames import tables
from kdbench.report.notes import provenance
from kdbench.suites import Suite

PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
COLUMNS = "pair label n fp32 fp32_std bf16 bf16_std delta low high detects exceeds".split()


def paired(suite: Suite, attempts: pd.DataFrame) -> pd.DataFrame:
    """pair, label, seed, fp32, bf16 (top-1, last epoch): every run that is there in both precisions.

    Raises KdbenchError where there is none.
    """
    found = []
    for table in tables(attempts):
        epochs = table.finished["epochs_done"].dropna().unique()
        recipes = {
            plan.recipe_id(replace(suite.recipe, precision=precision, epochs=int(count))): precision
            for precision in PRECISIONS
            for count in epochs
        }
        if table.split == "test" and table.recipe_id in recipes:
            runs = table.finished[["pair", "label", "seed", "epochs_done", "top1"]]
            found.append(runs.assign(precision=recipes[table.recipe_id]))
    keys = ["pair", "label", "seed"]
    if found:
        rows = pd.concat(found)
        wide = rows.pivot(index=["epochs_done", *keys], columns="precision", values="top1").reset_index()
        if set(PRECISIONS) <= set(wide.columns):
            both = wide.dropna(subset=list(PRECISIONS))
            if len(both):
                return both[[*keys, *PRECISIONS]].reset_index(drop=True)
    raise KdbenchError(
        f"no run of suite {suite.name} is there in fp32 and in bf16; type the same `kdbench run --suite {suite.name}` "
        "with --precision fp32 and with --precision bf16 first"
    )


def summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """By pair and label: mean and std (ddof 1) of each precision, the mean paired difference bf16 - fp32 with its 95 %
    t-interval, the smallest true difference that this n would show, and whether the interval leaves out 0."""
    rows = []
    for (pair, label), group in pairs.groupby(["pair", "label"]):
        differences = group["bf16"] - group["fp32"]
        interval = stats.t_interval(differences)
        spread = {name: stats.summary(group[name]) for name in PRECISIONS}
        rows.append(
            {
                "pair": pair,
                "label": label,
                "n": len(group),
                "fp32": spread["fp32"].mean,
                "fp32_std": spread["fp32"].std,
                "bf16": spread["bf16"].mean,
                "bf16_std": spread["bf16"].std,
                "delta": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "detects": stats.detectable(*stats.summary(differences)[1:]),
                "exceeds": bool(interval.low > 0 or interval.high < 0),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(table: pd.DataFrame) -> str:
    """In words, whether any difference exceeds the noise."""
    count = len(table)
    if table["low"].isna().all():
        return "One seed: nothing can be said of noise."
    beyond = table[table["exceeds"]]
    if beyond.empty:
        return (
            f"No difference exceeds the noise: all {count} intervals contain 0. They would show true differences from "
            f"{table['detects'].min():.1f} to {table['detects'].max():.1f} points on; smaller ones may be there."
        )
    names = ", ".join(f"{row.label} on {row.pair} ({row.delta:+.2f})" for row in beyond.itertuples())
    return (
        f"The difference exceeds the noise for {len(beyond)} of {count}: {names}. With {count} intervals at 95 %, "
        f"{0.05 * count:.1f} would do so by chance."
    )


def markdown(table: pd.DataFrame, command: Sequence[str], footer: Sequence[str]) -> str:
    """The table with its verdict and provenance."""
    lines = [
        "# bf16 beside fp32",
        "",
        verdict(table),
        "",
        "Top-1 in percent, last epoch, mean ± std (n seeds); bf16 - fp32: paired by seed, points, 95 % t-interval.",
        "",
        "| pair | method | fp32 | bf16 | bf16 - fp32 |",
        "|---|---|---:|---:|---:|",
    ]
    for row in table.to_dict("records"):
        values = [f"{row[p]:.2f} ± {row[f'{p}_std']:.2f} ({row['n']})" for p in PRECISIONS]
        difference = f"{row['delta']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        lines.append("| " + " | ".join([row["pair"], row["label"], *values, difference]) + " |")
    return "\n".join([*lines, "", "```sh", *command, "```", "", *footer, ""])


def draw(pairs: pd.DataFrame, table: pd.DataFrame, footer: Sequence[str]) -> Figure:
    """Dots: seeds.  Diamond and bar: mean and 95 % interval.  Grey band: the seeds' own std in fp32, both ways."""
    names = [f"{row.label}, {row.pair}" for row in table.itertuples()]
    reading = "Dots: seeds. Diamond, bar: mean, 95 % t-interval. Grey: ± the std over seeds in fp32."
    figure, (part,) = style.canvas(7, [0.9 + 0.35 * len(names)], [verdict(table), reading, *footer])
    style.heading(part, "Top-1 in bf16 against fp32, paired by seed, points")
    ax = style.grid(part, (1, 1), (0.3 + 0.062 * max(map(len, names)), 0.2, 0.35, 0.3), 0)[0, 0]
    for place, row in enumerate(table.to_dict("records")):
        group = pairs[(pairs["pair"] == row["pair"]) & (pairs["label"] == row["label"])]
        color = style.colour(row["label"])
        ax.barh(place, 2 * row["fp32_std"], left=-row["fp32_std"], color="#EEEEEE", height=0.8, zorder=0)
        ax.scatter(
            group["bf16"] - group["fp32"], np.full(len(group), place + 0.22), s=6, color=color, alpha=0.65
        )
        ax.hlines(place - 0.08, row["low"], row["high"], colors=color, linewidth=1.3)
        ax.scatter(
            row["delta"], place - 0.08, s=18, marker="D", color=color, edgecolors="white", linewidths=0.5
        )
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return figure


def commands(name: str, pairs: pd.DataFrame, attempts: pd.DataFrame) -> list[str]:
    """The two commands that give these runs their rows."""
    labels = pairs["label"].unique()
    methods = [m for m in attempts["method"].unique() if any(label.split()[0] == m for label in labels)]
    seeds = ",".join(map(str, sorted(pairs["seed"].unique())))
    same = f"kdbench run --suite {name} --methods {','.join(methods)} --seeds {seeds}"
    return [f"{same} --precision {precision}" for precision in PRECISIONS]


def origin(name: str, attempts: pd.DataFrame) -> list[str]:
    """Recipes, rows, commits and devices behind the table."""
    return provenance(name, tables(attempts))
