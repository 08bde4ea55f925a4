"""The figure of `kdbench bench scale`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kdbench.bench.scaling import BATCH, MAIN, SIDE
from kdbench.report.figures import style
from kdbench.report.figures.looks import DASHES, MARKERS, PALETTE
from kdbench.report.figures.sheet import SCREEN, Canvas, Drawn

MEASURES = {"ms": "ms per step and cell", "peak_mem_mb": "peak memory, MiB"}


def draw(table: pd.DataFrame) -> Drawn:
    """Draw time and memory (rows) against cells in the cohort, batch size and work per cell (columns)."""
    first = table.iloc[0]
    footer = [
        f"kd students side by side, {first['precision']}; {first['device']}, {first['threads']} threads, torch "
        f"{first['torch']}. Bars: the range of the rounds. A matrix product reaches {first['peak_tflop_per_s']:.3g} "
        f"TFLOP/s here. Before the first step {first['idle_mem_mb']:.0f} MiB are in use."
    ]
    looks: dict[str, Any] = {
        pair: {
            "color": PALETTE[i % len(PALETTE)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % len(DASHES)],
        }
        for i, pair in enumerate(table["pair"].unique())
    }
    figure, (part,) = Canvas(SCREEN, 10, "What a step costs", footer).draw([5.4])
    axes = style.grid(part, (2, 3), (0.7, 2.0, 0.2, 0.5), 0.35, sharex="col")
    usual_batch, usual_cells = table["batch_size"] == BATCH, table["cells"] == SIDE
    columns = {
        f"cells in the cohort (batch {BATCH})": ("cells", table[usual_batch]),
        f"batch size ({SIDE} cells, {MAIN})": ("batch_size", table[usual_cells & (table["pair"] == MAIN)]),
        f"GFLOP per step and cell ({SIDE} cells)": ("work", table[usual_cells & usual_batch]),
    }
    for place, (label, (key, rows)) in enumerate(columns.items()):
        for ax, (measure, name) in zip(axes[:, place], MEASURES.items(), strict=True):
            _panel(ax, rows.assign(work=rows["gflop_step"] / rows["cells"]), key, measure, looks)
            if place == 0:
                ax.set_ylabel(name)
        axes[1, place].set_xlabel(label)
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    handles = [lines[pair] for pair in looks if pair in lines]
    part.legend(handles, [str(h.get_label()) for h in handles], loc="center right", handlelength=3)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, key: str, measure: str, looks: dict[str, Any]) -> None:
    for pair, group in rows.groupby("pair", sort=False):
        group = group.sort_values(key)
        if key != "work" and len(group) < 2:
            continue
        ax.plot(group[key], group[measure], label=pair, markersize=4, linewidth=1.2, **looks[str(pair)])
        if measure == "ms":
            ax.vlines(
                group[key], group["ms_low"], group["ms_high"], color=looks[str(pair)]["color"], linewidth=1
            )
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.grid(color="#EEEEEE", linewidth=0.6)
    ax.set_axisbelow(True)
