"""`kdbench bench precision`: paired differences between runs that differ in nothing but fp32 and bf16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.report.figures import style
from kdbench.report.figures.sheet import SCREEN, Canvas, Drawn
from kdbench.report.tables import ARROW, Table, tables
from kdbench.results import setting
from kdbench.results.statistics import summary as stats
from kdbench.results.statistics.power import detects
from kdbench.suites import Suite, replace_recipe
from kdbench.utils.hashing import canonical

PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
RUN = ["pair", "label", "seed"]
COLUMNS = "pair label n fp32 fp32_std bf16 bf16_std delta low high detects exceeds".split()


def sides(suite: Suite, attempts: pd.DataFrame) -> dict[str, Table]:
    """The test runs of the longest recipe that exist in fp32 and in bf16, by precision.

    Raises KdbenchError where there are none.
    """
    by_recipe: dict[tuple[str, str], dict[str, list[Table]]] = {}
    for table in tables(attempts):
        if table.split == "test" and table.precision in PRECISIONS and len(table.finished):
            epochs = int(table.finished["epochs_done"].iloc[0])
            recipe = replace_recipe(
                suite.recipe, {"precision": table.precision, "epochs": epochs}, suite.name
            )
            if table.recipe_id == recipe.id:
                by_recipe.setdefault((table.dataset, table.epochs), {}).setdefault(
                    table.precision, []
                ).append(table)
    for both in by_recipe.values():
        if set(both) == set(PRECISIONS):
            runs = {kind: _runs(several) for kind, several in both.items()}
            common = runs["fp32"].index.intersection(runs["bf16"].index).sort_values()
            if len(common):
                return {k: replace(both[k][0], rows=runs[k].loc[common].reset_index()) for k in PRECISIONS}
    raise KdbenchError(
        f"no run of suite {suite.name} exists in fp32 and in bf16; type the same `kdbench run --suite {suite.name}` "
        "with --precision fp32 and with --precision bf16 first"
    )


def _runs(several: list[Table]) -> pd.DataFrame:
    """The finished runs of tables, by what must be equal for two runs to differ in precision only."""
    rows = pd.concat([table.finished for table in several]).drop_duplicates(["cell_id", *RUN])
    return rows.assign(alike=rows["facts"].map(_but_precision)).set_index([*RUN, "alike"])


def _but_precision(facts: str) -> str:
    parsed = setting.parse(facts)
    recipe = {key: value for key, value in parsed.get("recipe", {}).items() if key != "precision"}
    return canonical({**parsed, "recipe": recipe})


def paired(both: dict[str, Table]) -> pd.DataFrame:
    """pair, label, seed, fp32, bf16 (top-1, last epoch) of the runs of `sides`."""
    return both["fp32"].rows[RUN].assign(**{kind: both[kind].rows["top1"] for kind in PRECISIONS})


def summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row per pair and label: the paired difference bf16 - fp32 in points of top-1, with its 95 % t-interval.

    Also mean and std (ddof 1) of each precision, the smallest true difference that this n would show (``detects``), and
    whether the interval excludes 0 (``exceeds``).
    """
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
                "detects": detects(differences.std() / np.sqrt(2), 2, len(differences.dropna())),
                "exceeds": bool(interval.low > 0 or interval.high < 0),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(table: pd.DataFrame) -> str:
    """A sentence that says whether any difference exceeds the noise."""
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


def draw(pairs: pd.DataFrame, table: pd.DataFrame, footer: Sequence[str]) -> Drawn:
    """Dots: seeds.  Diamond and bar: mean and 95 % interval.  Grey band: the seeds' own std in fp32, both ways."""
    names = [f"{row.label}, {row.pair}" for row in table.itertuples()]
    reading = "Dots: seeds. Diamond, bar: mean, 95 % t-interval. Grey: ± the std over seeds in fp32."
    title = "Top-1 in bf16 against fp32, paired by seed, points"
    canvas = Canvas(SCREEN, SCREEN.wide, title, [verdict(table), reading, *footer])
    figure, (part,) = canvas.draw([0.65 + 0.35 * len(names)])
    ax = style.grid(part, (1, 1), (0.3 + 0.062 * max(map(len, names)), 0.2, 0.1, 0.3), 0)[0, 0]
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


def commands(name: str, suite: Suite, both: dict[str, Table]) -> list[str]:
    """The two commands that train these runs."""
    rows = both["bf16"].rows
    seeds, epochs = map(str, sorted(rows["seed"].unique())), int(rows["epochs_done"].iloc[0])
    same = (
        f"kdbench run --suite {name} --methods {','.join(rows['method'].unique())} --seeds {','.join(seeds)}"
    )
    used = {pair.replace(ARROW, ":") for pair in rows["pair"]}
    if used < {str(pair) for pair in suite.pairs}:
        same += f" --pairs {','.join(sorted(used))}"
    if epochs != suite.recipe.epochs:
        same += f" --epochs {epochs}"
    return [f"{same} --precision {precision}" for precision in PRECISIONS]
