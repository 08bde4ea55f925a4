"""Every figure of a suite, written with what it shows; one that has nothing to show is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from kdbench.report import order
from kdbench.report.figures import (
    ablation,
    calibration,
    class_similarity,
    cost_accuracy,
    curves,
    forest,
    heatmap,
    style,
)
from kdbench.report.figures import sweep as sweeps
from kdbench.report.figures.files import Caption
from kdbench.report.leaderboard import Board


class Drawing(NamedTuple):
    """A figure to be: the name of its files, what it shows, its data, and how these are drawn against a method.

    aside: what its foot says of what it leaves out. page: its table as markdown; scores: numbers behind that table
    which are not in the data.
    """

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame, str, Sequence[str]], Figure]
    against: str
    aside: Sequence[str] = ()
    page: str = ""
    scores: pd.DataFrame | None = None


def write(
    boards: Sequence[Board],
    epochs: pd.DataFrame,
    details: Sequence[Path],
    baseline: str,
    footer: Sequence[str],
    folder: Path,
    formats: Sequence[str] = style.FORMATS[:1],
) -> dict[str, Caption]:
    """Write all figures as <name>.csv (what is drawn) and a picture per format into ``folder``; name -> what it shows.

    A figure shows one table; names of figures of the appendix end in the table's slug (`order.slugs`). One without
    data is not drawn. epochs: curves of all cells in long form. details: the folders of the cells' npz files.
    Sweeps, ablations and the similarity also write their table as <name>.md. Raises OSError.
    """
    captions = {}
    slugs = order.slugs([board.table for board in boards])
    with matplotlib.rc_context(style.RC):
        for place, (board, slug) in enumerate(zip(boards, slugs, strict=True)):
            for one in _drawings(board, epochs, details, baseline, footer):
                name = "-".join(part for part in (one.name, slug) if part)
                if len(one.data):
                    figure = one.draw(one.data, one.against, [*one.aside, *footer])
                    style.save(figure, one.data, folder / name, formats)
                    captions[name] = Caption(" ".join([one.caption + ".", *one.aside]), place)
                if one.page:
                    (folder / f"{name}.md").write_text(one.page, "utf-8")
                if one.scores is not None:
                    style.save_data(one.scores, folder / f"{name}-scores.csv")
    return captions


def _drawings(
    board: Board, epochs: pd.DataFrame, details: Sequence[Path], baseline: str, footer: Sequence[str]
) -> Iterator[Drawing]:
    """The figures of one table."""
    table, aside = board.table, _others(board)
    said = f"Paired differences in top-1 to {baseline}"
    data = forest.frame(board)
    yield Drawing("forest", said, data, forest.draw, baseline, [*aside, *_single(board, data)])
    said = f"Difference to {baseline} on every pair"
    yield Drawing("heatmap", said, heatmap.frame(board), heatmap.draw, baseline, aside)
    yield Drawing(
        "cost", "Cost and accuracy", cost_accuracy.frame(board), cost_accuracy.draw, baseline, aside
    )
    for (method, parameter), data in sweeps.frame([table], baseline).groupby(["method", "parameter"]):
        name, said = f"sweep-{method}-{parameter}", f"Sweep of {method}'s {parameter}"
        page = sweeps.markdown(data, baseline, footer)
        yield Drawing(name, said, data, sweeps.draw, baseline, page=page)
    for method in sorted({str(method) for method in table.rows["method"]}):
        for part in ablation.boards([table], method, baseline):
            page = ablation.markdown([part], method, footer)
            said, data = f"What {method} reaches without its components", forest.frame(part, part.labels)
            yield Drawing(f"ablation-{method}", said, data, ablation.draw, method, page=page)
    said = "Accuracy and loss by epoch"
    yield Drawing("curves", said, curves.frame(table, epochs), curves.draw, baseline, aside)
    said = "Confidence and accuracy"
    yield Drawing("calibration", said, calibration.frame(table, details), calibration.draw, baseline, aside)
    measured = class_similarity.measure([board], details)
    if len(measured.runs):
        scores = class_similarity.frame(measured.runs, [board])
        page = class_similarity.markdown(scores, baseline, footer)
        said = "How alike student and teacher predict, class by class"
        yield Drawing(
            "similarity", said, measured.matrices, class_similarity.draw, baseline, aside, page, scores
        )


def _others(board: Board) -> list[str]:
    """Lines of the leaderboard that figures of all methods leave out, and where they are."""
    count = len(set(board.labels) - set(style.main(board.labels)))
    if not count:
        return []
    return [
        f"Methods as the suite sets them, by their newest code; {order.count(count, 'other line')} of the leaderboard "
        "(settings, older code): see there and the figures of sweeps and ablations."
    ]


def _single(board: Board, data: pd.DataFrame) -> list[str]:
    """Pairs that a forest leaves out for want of any interval."""
    count = len(set(board.table.pairs) - set(data["panel"]))
    return [
        f"Without a panel: {count} of {len(board.table.pairs)} pairs, where no method has an interval."
    ] * (count > 0)
