"""Every figure of a suite, written with what it shows; one that has nothing to show is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from kdbench.report import ablation, calibration, cost, curves, forest, heatmap, matrices, similarity, style
from kdbench.report import sweep as sweeps
from kdbench.report.board import Board

ALWAYS = ("forest", "curves")  # leaderboard.md shows them; without rows they say why they are empty


class Drawing(NamedTuple):
    """A figure to be: the name of its files, what it shows, its data, and how these are drawn against a method.

    page: its table as markdown; scores: numbers behind that table which are not in the data.
    """

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame, str, Sequence[str]], Figure]
    against: str
    page: str = ""
    scores: pd.DataFrame | None = None


def write(
    boards: Sequence[Board],
    epochs: pd.DataFrame,
    details: Sequence[Path],
    baseline: str,
    footer: Sequence[str],
    folder: Path,
) -> dict[str, str]:
    """Write all figures as <name>.png, .svg and .csv (what is drawn) into ``folder``; name -> what it shows.

    epochs: curves of all cells in long form. details: the folders that hold the cells' npz files. Sweeps,
    ablations and the similarity also write their table as <name>.md. Raises OSError.
    """
    for old in [*folder.glob("sweep-*.md"), *folder.glob("ablation-*.md")]:  # their rows may have gone
        old.unlink()
    told = {}
    with matplotlib.rc_context(style.RC):
        for one in _drawings(boards, epochs, details, baseline, footer):
            if len(one.data) or one.name in ALWAYS:
                style.save(one.draw(one.data, one.against, footer), one.data, folder / one.name)
                told[one.name] = one.caption
            if one.page:
                (folder / f"{one.name}.md").write_text(one.page, "utf-8")
            if one.scores is not None:
                style.save_data(one.scores, folder / f"{one.name}-scores.csv")
    return told


def _drawings(
    boards: Sequence[Board],
    epochs: pd.DataFrame,
    details: Sequence[Path],
    baseline: str,
    footer: Sequence[str],
) -> Iterator[Drawing]:
    tables = [board.table for board in boards]
    said = f"Paired differences in top-1 to {baseline}"
    yield Drawing("forest", said, forest.frame(boards), forest.draw, baseline)
    said = f"Difference to {baseline} on every pair"
    yield Drawing("heatmap", said, heatmap.frame(boards), heatmap.draw, baseline)
    yield Drawing("cost", "Cost and accuracy", cost.frame(boards), cost.draw, baseline)
    for (method, parameter), data in sweeps.frame(tables, baseline).groupby(["method", "parameter"]):
        name, said = f"sweep-{method}-{parameter}", f"Sweep of {method}'s {parameter}"
        yield Drawing(name, said, data, sweeps.draw, baseline, sweeps.markdown(data, baseline, footer))
    for method in sorted({str(method) for table in tables for method in table.rows["method"]}):
        if parts := ablation.boards(tables, method, baseline):
            page = ablation.markdown(parts, method, footer)
            said = f"What {method} reaches without its components"
            yield Drawing(f"ablation-{method}", said, forest.frame(parts), ablation.draw, method, page)
    said = "Accuracy and loss by epoch"
    yield Drawing("curves", said, curves.frame(tables, epochs), curves.draw, baseline)
    said = "Confidence and accuracy"
    yield Drawing("calibration", said, calibration.frame(tables, details), calibration.draw, baseline)
    found = similarity.measure(boards, details)
    if len(found.runs):
        scores = similarity.frame(found.runs, boards)
        page = similarity.markdown(scores, baseline, footer)
        said = "How alike student and teacher predict, class by class"
        yield Drawing("similarity", said, found.matrices, matrices.draw, baseline, page, scores)
