"""The index of a folder of reports: what it says of each suite is read from the suite's leaderboard.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.report.markdown import interval
from kdbench.report.page import assets, published

FILE = "index.html"


def write(out: Path) -> None:
    """index.html over all suites that have a report in ``out``, and published.html. Raises OSError."""
    assets.write(out)
    (out / published.FILE).write_text(published.page(), "utf-8")
    lines = [_line(file) for file in sorted(out.glob("*/leaderboard.csv")) if (file.parent / FILE).is_file()]
    text = assets.template("index.html").render(
        title="kdbench: reports",
        suites=lines,
        published=published.FILE,
        css=assets.markup("page.css"),
    )
    (out / FILE).write_text(text, "utf-8")


def _line(file: Path) -> dict[str, Any]:
    """A suite's main table in a line: what was measured, how much of it, and the best method by rank."""
    table = pd.read_csv(file)
    main = table[table["table"] == "main"]
    first = main.iloc[0]
    methods = main["label"].str.split().str[0].nunique()
    return {
        "suite": file.parent.name,
        "dataset": f"{first['dataset']}, {first['split']} split, {first['epochs']} epochs",
        "methods": methods,
        "pairs": first["pairs_total"],
        "best": first["label"],
        "delta": interval(first["delta"], first["low"], first["high"]),
        "baseline": first["baseline"],
    }
