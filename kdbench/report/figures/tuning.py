"""What tuning buys: the expected best accuracy on the holdout split against trials, and against hours."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdbench.report.figures import style
from kdbench.report.figures.sheet import Canvas, Drawn, Sheet, left_out
from kdbench.results.statistics.budget import band, expected_best
from kdbench.utils.status import Status

COLUMNS = "pair method trials hours expected low high".split()
HEIGHT = 2.6  # inches of a pair
EDGE = 0.15  # inches above and below all pairs
AXES = {"trials": "trials", "hours": "hours of the students' training"}


def frame(trials: pd.DataFrame) -> pd.DataFrame:
    """For each method and pair the expected best of 1 .. N trials in percent, with its 95 % band, and their hours.

    A trial without an accuracy counts as 0. The hours are those of as many mean trials.
    """
    parts = []
    for (teacher, student, method), rows in trials.groupby(["teacher", "student", "method"]):
        accuracies = rows["top1"].where(rows["status"] == Status.OK, 0.0).to_numpy(float)
        low, high = band(accuracies)
        count = pd.Series(range(1, len(rows) + 1))
        curve = {"trials": count, "hours": count * rows["train_s"].mean() / 3600, "low": low, "high": high}
        expected = expected_best(accuracies)
        parts.append(
            pd.DataFrame({"pair": f"{teacher} -> {student}", "method": method, "expected": expected, **curve})
        )
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def draw(data: pd.DataFrame, sheet: Sheet) -> Drawn:
    """A row per pair, as many as fit: accuracy against trials and against hours."""
    pairs = [(str(pair), rows) for pair, rows in data.groupby("pair")]
    looks = style.lines(data["method"].unique())
    columns = max(1, int(sheet.wide // (0.9 + 0.075 * max(map(len, looks)))))
    legend = 0.3 + 0.17 * -(-len(looks) // columns)
    reading = (
        "Expected highest accuracy of so many random trials (Dodge et al., 2019), on the holdout split; band: 95 % "
        "percentile bootstrap over the trials. The trials were chosen by a sampler that learns: of random ones it "
        "takes more. A curve on top at a budget is the method to choose at that budget."
    )
    canvas = Canvas(sheet, sheet.wide, "What tuning buys", [reading])
    down = min(len(pairs), max(1, int((canvas.room - EDGE - legend) / HEIGHT)))
    said = left_out(down, len(pairs), "pairs")
    figure, parts = canvas.draw([EDGE + HEIGHT * down, legend], said)
    axes = style.grid(parts[0], (down, len(AXES)), (0.6, 0.15, 0.35, 0.45), 0.8)
    for row, (pair, rows) in zip(axes, pairs, strict=False):
        for ax, (column, name) in zip(row, AXES.items(), strict=True):
            for method, line in rows.groupby("method"):
                look = looks[str(method)]
                ax.fill_between(
                    line[column], line["low"], line["high"], color=look["color"], alpha=0.1, linewidth=0
                )
                ax.plot(line[column], line["expected"], linewidth=1.1, markersize=3, markevery=0.2, **look)
            ax.set_xlabel(name)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=column == "trials"))
            floor = rows.loc[rows["trials"] > 1, "expected"].min()
            ax.set_ylim(bottom=floor - 0.05 * max(rows["high"].max() - floor, 1.0))
        row[0].set_ylabel("top-1 (%), holdout")
        row[0].set_title(style.title(pair, 60).replace("\n", " "), loc="left")
    lines = [Line2D([], [], linewidth=1.1, markersize=3, **look) for look in looks.values()]
    parts[-1].legend(lines, list(looks), loc="center", ncols=columns, handlelength=4)
    return figure
