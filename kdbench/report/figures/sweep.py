"""Hyperparameter sweeps: runs of one method that differ in one parameter alone, against the value of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from kdbench.report import markdown as pipes
from kdbench.report.figures import style
from kdbench.report.figures.looks import DASHES, MARKERS, PALETTE
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.report.tables import Table
from kdbench.utils.status import Status

SCALAR = (bool, int, float, str)  # what a parameter can be
LEAST = 3  # values that make a sweep
COLUMNS = (
    "table method parameter pair setting value number seed top1 std n diverged default best edge base_mean base_std "
    "base_n"
).split()
ACROSS, HEIGHT = 3, 2.7  # panels in a row; inches of one
EDGE = 0.05  # inches above and below all
TITLE = 0.5  # inches of the name of a pair
TICKS = 9  # most of an axis
USUAL = "the suite's setting of the others"


def params(text: str) -> dict[str, Any]:
    """A row's parameters; none where the text is not what kdbench writes."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return {k: v for k, v in values.items() if isinstance(v, SCALAR)} if isinstance(values, dict) else {}


def show(value: Any) -> str:
    """A parameter's value in few characters: 4.0 as 4."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def frame(tables: Sequence[Table], baseline: str) -> pd.DataFrame:
    """All sweeps of the tables in long form.

    A sweep is a method, one parameter of it with at least three values, a pair, and a ``setting`` of the other
    parameters, all equal ('' where they are those of the suite, else what differs from these). Lines without a
    ``seed`` are means over seeds (top1, std, n, diverged = seeds that diverged; no mean where one did); the
    others are single runs. ``number``: the value, or its place where the values are words. ``default``: the
    suite's value. ``best``: the highest mean; ``edge``: it is the smallest or the largest value tried; the test split,
    which may not choose, has neither. base_*: the baseline under the same conditions.
    """
    parts = [part for table in tables for part in _of_table(table, baseline)]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def _of_table(table: Table, baseline: str) -> Iterator[pd.DataFrame]:
    done = table.finished
    bases = done[done["label"] == baseline].groupby("pair")["top1"].agg(["mean", "std", "count"])
    runs = table.rows[table.rows["status"].isin([Status.OK, Status.DIVERGED])]
    runs = runs[~runs["label"].isin(table.codes)]
    runs = runs[runs.groupby("method")["params"].transform("nunique") >= LEAST]
    for (method, pair), rows in runs.groupby(["method", "pair"]):
        own = rows["params"].map(params)
        usual: dict[str, Any] = next(iter(own[rows["label"] == method]), {})
        base = dict(zip(("base_mean", "base_std", "base_n"), bases.reindex([pair]).iloc[0], strict=True))
        for parameter in sorted({key for one in own for key in one}):
            for setting, values in _settings(own, rows["method_version"], parameter, usual):
                part = _sweep(rows.loc[values.index], values, usual.get(parameter))
                if table.split == "test":
                    part[["best", "edge"]] = False
                keys = {"table": table.heading, "method": method, "parameter": parameter, "pair": pair}
                yield part.assign(setting=setting, **keys, **base)


def _settings(
    own: pd.Series, version: pd.Series, parameter: str, usual: Mapping[str, Any]
) -> Iterator[tuple[str, pd.Series]]:
    """(the setting of the other parameters, this parameter's values by row) for each sweep."""
    having = own[[parameter in one for one in own]]
    others = having.map(lambda one: {key: value for key, value in one.items() if key != parameter})
    same = others.map(lambda one: json.dumps(one, sort_keys=True))
    for _, values in having.map(lambda one: one[parameter]).groupby([version[having.index], same]):
        if len(set(values)) >= LEAST:
            other = others[values.index[0]]
            yield " ".join(f"{k}={show(v)}" for k, v in other.items() if v != usual.get(k)), values


def _sweep(rows: pd.DataFrame, values: pd.Series, usual: Any) -> pd.DataFrame:
    """The runs of one sweep and their values -> single runs and means."""
    numeric = all(isinstance(value, int | float) for value in values)
    words = sorted(map(show, set(values)))
    number = values.astype(float) if numeric else values.map(show).map(words.index).astype(float)
    good = rows["status"] == Status.OK
    runs = pd.DataFrame({"number": number, "value": values.map(show), "seed": rows["seed"], "failed": ~good})
    runs["top1"] = rows["top1"].where(good)
    groups = runs.groupby(["number", "value"])
    means = groups["top1"].agg(["mean", "std", "count"]).set_axis(["top1", "std", "n"], axis=1)
    means["diverged"] = groups["failed"].sum()
    means["top1"] = means["top1"].where(means["diverged"] == 0)
    means = means.reset_index()
    means["best"] = means["top1"] == means["top1"].max()
    inner = means["best"] & means["number"].gt(number.min()) & means["number"].lt(number.max())
    means["edge"] = means["best"] & numeric & (not inner.any())
    whole = pd.concat([means, runs[good].drop(columns="failed")], ignore_index=True)
    return whole.assign(default=whole["value"] == (show(usual) if usual is not None else ""))


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """The sweeps of one method and parameter: one panel per pair, as many as fit, and one line per setting."""
    panels = [(str(pair), rows) for pair, rows in data.groupby("pair")]
    looks = _looks(data)
    width = sheet.wide if len(panels) > 1 else sheet.panel
    columns = max(1, int(width // (1.0 + 0.075 * max(map(len, [USUAL, *looks])))))
    legend = [0.2 + 0.17 * -(-len(looks) // columns)] if len(looks) > 1 else []
    reading = (
        "Dots: seeds; line: their means. Ring: the value that the suite sets. Grey: mean ± std of "
        f"{baseline} on the same pair. ✗: a seed diverged. "
        + (
            "'best at the edge': the best mean is at the end of the grid; a better value may lie beyond."
            if data["best"].any()
            else "No best value is marked: the test split may not choose; try values on --split holdout."
        )
    )
    across = min(len(panels), ACROSS)
    first = data.iloc[0]
    title = f"Sweep of {first['method']}'s {first['parameter']}:\n{first['table']}"
    canvas = Canvas(sheet, width, title, [reading], [pair for pair, _ in panels])
    space = canvas.room - EDGE - sum(legend)
    down = min(-(-len(panels) // across), max(1, int(space / HEIGHT)))
    said = left_out(min(across * down, len(panels)), len(panels), "pairs")
    top = canvas.top(TITLE)
    figure, parts = canvas.draw([EDGE - TITLE + top + HEIGHT * down, *legend], said)
    shown = panels[: across * down] if canvas.named else [("", panels[0][1])]
    _panels(parts[0], shown, (down, across), looks, baseline, top)
    if legend:
        lines = [Line2D([], [], markersize=4, **look) for look in looks.values()]
        names = [setting or USUAL for setting in looks]
        parts[-1].legend(lines, names, loc="center", ncols=columns, handlelength=4)
    return figure


def _looks(data: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """setting -> its line: the suite's in the method's colour, others in the palette's."""
    first, *others = sorted(data["setting"].unique())
    own = style.colour(data["method"].iloc[0])
    looks: dict[str, dict[str, Any]] = {first: {"color": own, "linestyle": "-", "marker": "o"}}
    rest = [colour for colour in PALETTE if colour != own]
    for i, setting in enumerate(others):
        dash, marker = DASHES[(i + 1) % 4], MARKERS[(i + 1) % 7]
        looks[setting] = {"color": rest[i % len(rest)], "linestyle": dash, "marker": marker}
    return looks


def _panels(
    part: SubFigure,
    panels: Sequence[tuple[str, pd.DataFrame]],
    shape: tuple[int, int],
    looks: dict[str, dict[str, Any]],
    baseline: str,
    top: float,
) -> None:
    grid = style.grid(part, shape, (0.6, 0.15, top, 0.5), 0.95)
    for ax, (pair, rows) in zip(grid.flat, panels, strict=False):
        ax.set_title(style.title(pair, 28))
        _panel(ax, rows, looks, baseline)
    for ax in grid.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in grid[:, 0]:
        ax.set_ylabel("top-1 (%), last epoch")


def _panel(ax: Axes, rows: pd.DataFrame, looks: dict[str, dict[str, Any]], baseline: str) -> None:
    _base(ax, rows.iloc[0], baseline)
    words = _words(rows)
    for setting, sweep in rows.groupby("setting"):
        look = {**looks[str(setting)], **({"linestyle": ""} if words else {})}
        means, runs = sweep[sweep["seed"].isna()], sweep[sweep["seed"].notna()]
        ax.scatter(runs["number"], runs["top1"], s=7, c=look["color"], alpha=0.5, linewidths=0)
        ax.plot(means["number"], means["top1"], linewidth=1.2, markersize=3.5, **look)
        usual = means[means["default"]]
        ax.scatter(
            usual["number"], usual["top1"], s=70, facecolors="none", edgecolors=look["color"], zorder=3
        )
        edge = means[means["edge"] & (setting == next(iter(looks)))]
        for x, y in zip(edge["number"], edge["top1"], strict=True):
            _flag(ax, x, y, bool(x == means["number"].max()))
    _axis(ax, rows, words)
    failed = rows[rows["diverged"] > 0]["number"].unique()
    foot = np.full(len(failed), 0.04)
    ax.plot(failed, foot, "x", color="black", markersize=5, transform=ax.get_xaxis_transform())


def _words(rows: pd.DataFrame) -> bool:
    """Whether the values are words, which have places of their own."""
    return bool((pd.to_numeric(rows["value"], errors="coerce") != rows["number"]).any())


def _base(ax: Axes, row: pd.Series, baseline: str) -> None:
    """The baseline's mean and std as a band."""
    mean, std = row["base_mean"], row["base_std"]
    if not np.isnan(std):
        ax.axhspan(mean - std, mean + std, color="#E4E4E4", linewidth=0, zorder=0)
    if not np.isnan(mean):
        ax.axhline(mean, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.5)
        looks: dict[str, Any] = {"fontsize": 7, "color": style.GREY, "ha": "right", "va": "bottom"}
        ax.text(0.995, mean, baseline, transform=ax.get_yaxis_transform(), **looks)


def _flag(ax: Axes, x: float, y: float, right: bool) -> None:
    arrow: dict[str, Any] = {"arrowstyle": "-", "color": style.GREY, "linewidth": 0.5}
    place, side = ((-8, 12), "right") if right else ((8, 12), "left")
    ax.annotate(
        "best at the edge", (x, y), place, textcoords="offset points", fontsize=7, ha=side, arrowprops=arrow
    )


def _axis(ax: Axes, rows: pd.DataFrame, words: bool) -> None:
    """A tick at the values; logarithmic where they span a decade, 0 then standing apart on the left."""
    ticks = rows.drop_duplicates("number").sort_values("number")
    above = ticks["number"][ticks["number"] > 0]
    if not words and ticks["number"].min() >= 0 and len(above) and above.max() / above.min() >= 10:
        if len(above) == len(ticks):
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=above.min(), linscale=0.5)
    ax.xaxis.set_minor_locator(NullLocator())
    shown = ticks.iloc[:: -(-len(ticks) // TICKS)]
    ax.set_xticks(shown["number"].to_numpy(float), [textwrap.fill(value, 12) for value in shown["value"]])
    ax.margins(x=0.25 if words else 0.08, y=0.15)
    ax.set_xlabel(rows["parameter"].iloc[0])


def markdown(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> str:
    """The means of one method and parameter: a table per table, a line per value and setting, a column per pair."""
    parameter = data["parameter"].iloc[0]
    parts = []
    for table, rows in data[data["seed"].isna()].groupby("table", sort=False):
        pairs = sorted(rows["pair"].unique())
        lines = []
        for (setting, _, value), line in rows.groupby(["setting", "number", "value"]):
            usual = " (the suite's)" if line["default"].any() else ""
            entries = {entry["pair"]: _entry(entry) for entry in line.to_dict("records")}
            lines.append([str(value) + usual, str(setting), *(entries.get(pair, "–") for pair in pairs)])
        base = rows.drop_duplicates("pair").set_index("pair").loc[pairs, ["base_mean", "base_std", "base_n"]]
        lines.append([baseline, "", *(pipes.spread(*numbers) for numbers in base.to_numpy())])
        parts += [f"## {table}", pipes.pipes([parameter, "other parameters", *pairs], lines)]
    said = "Bold: the best mean; ⚑: it is at the edge of the grid."
    if not data["best"].any():
        said = "No value is marked as the best: the test split may not choose; try values on --split holdout."
    parts.append(f"Mean ± std (seeds) of top-1, last epoch. {said}")
    return pipes.page(f"{data['method'].iloc[0]}: sweep of {parameter}", parts, footer)


def _entry(entry: Mapping) -> str:
    if entry["diverged"]:
        return f"✗{entry['diverged']:.0f}"
    text = pipes.spread(entry["top1"], entry["std"], entry["n"])
    return f"**{text}**" + (" ⚑" if entry["edge"] else "") if entry["best"] else text
