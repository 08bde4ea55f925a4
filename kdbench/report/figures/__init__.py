"""Every figure of a suite, written with what it shows; one that has nothing to show is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

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
from kdbench.report.figures.files import Picture
from kdbench.report.figures.sheet import Drawn, Sheet, absent, save_data
from kdbench.report.leaderboard import Board


class Drawing(NamedTuple):
    """A figure to be: the name of its files, what it shows, its data, and how these are drawn on a sheet.

    table: the place among the suite's tables of the one that it is about. aside: what it leaves out. page: its table
    as markdown; scores: numbers behind that table which are not in the data.
    """

    name: str
    caption: str
    data: pd.DataFrame
    draw: Callable[[pd.DataFrame, Sheet], Drawn]
    table: int = 0
    aside: Sequence[str] = ()
    page: str = ""
    scores: pd.DataFrame | None = None


def write(
    drawings: Iterable[Drawing], sheet: Sheet, provenance: Sequence[str], folder: Path
) -> list[tuple[Picture, Drawn]]:
    """Write each figure as a picture per format of the sheet into ``folder``.

    Returns them as pages name them, and as they were drawn. One without data is not drawn. Raises OSError.
    """
    shown = []
    with sheet.drawing():
        for one in drawings:
            if len(one.data):
                figure = one.draw(one.data, sheet.saying(provenance, one.aside))
                sheet.save(figure, folder / one.name)
                text = " ".join([one.caption + ".", *one.aside])
                shown.append((Picture(one.name, text, one.table, sheet.formats), figure))
    return shown


def write_data(drawings: Iterable[Drawing], folder: Path) -> None:
    """Write what each figure draws as <name>.csv, and its table as <name>.md, into ``folder``. Raises OSError."""
    for one in drawings:
        if len(one.data):
            save_data(one.data, folder / f"{one.name}.csv")
        if one.page:
            (folder / f"{one.name}.md").write_text(one.page, "utf-8")
        if one.scores is not None:
            save_data(one.scores, folder / f"{one.name}-scores.csv")


def of_boards(
    boards: Sequence[Board],
    epochs: pd.DataFrame,
    details: Sequence[Path],
    baseline: str,
    footer: Sequence[str],
) -> Iterator[Drawing]:
    """All figures of the tables. A figure shows one; names of figures of the appendix end in its slug (`order.slugs`).

    epochs: curves of all cells in long form. details: the folders of the cells' npz files. footer: of the pages.
    """
    slugs = order.slugs([board.table for board in boards])
    for place, (board, slug) in enumerate(zip(boards, slugs, strict=True)):
        for one in _of_board(board, epochs, details, baseline, footer):
            name = "-".join(part for part in (one.name, slug) if part)
            yield one._replace(name=name, table=place)


def _of_board(
    board: Board, epochs: pd.DataFrame, details: Sequence[Path], baseline: str, footer: Sequence[str]
) -> Iterator[Drawing]:
    """The figures of one table."""
    table, aside = board.table, _others(board)
    said = f"Paired differences in top-1 to {baseline}"
    data = forest.frame(board)
    drawn = partial(forest.draw, baseline=baseline)
    yield Drawing("forest", said, data, drawn, aside=[*aside, *_single(board, data)])
    said = f"Difference to {baseline} on every pair"
    drawn = partial(heatmap.draw, baseline=baseline)
    yield Drawing("heatmap", said, heatmap.frame(board), drawn, aside=aside)
    labels = style.main(board.labels)
    data = cost_accuracy.frame(board)
    drawn = partial(cost_accuracy.draw, baseline=baseline)
    without = absent(labels, data["label"], f"a cost that can be compared or a pair that {baseline} shares")
    yield Drawing("cost", "Cost and accuracy", data, drawn, aside=[*aside, *without])
    drawn = partial(sweeps.draw, baseline=baseline)
    for (method, parameter), data in sweeps.frame([table], baseline).groupby(["method", "parameter"]):
        name, said = f"sweep-{method}-{parameter}", f"Sweep of {method}'s {parameter}"
        page = sweeps.markdown(data, baseline, footer)
        yield Drawing(name, said, data, drawn, page=page)
    for method in sorted({str(method) for method in table.rows["method"]}):
        for part in ablation.boards([table], method, baseline):
            page = ablation.markdown([part], method, footer)
            said, data = f"What {method} reaches without its components", forest.frame(part, part.labels)
            drawn = partial(ablation.draw, method=method)
            yield Drawing(f"ablation-{method}", said, data, drawn, page=page)
    said = "Accuracy and loss by epoch"
    drawn = partial(curves.draw, baseline=baseline)
    data = curves.frame(table, epochs)
    without = absent(labels, data["label"], "recorded epochs")
    yield Drawing("curves", said, data, drawn, aside=[*aside, *without])
    said = "Confidence and accuracy"
    drawn = partial(calibration.draw, baseline=baseline)
    data = calibration.frame(table, details)
    without = absent(labels, data["label"], "saved predictions")
    yield Drawing("calibration", said, data, drawn, aside=[*aside, *without])
    measured = class_similarity.measure([board], details)
    if len(measured.runs):
        scores = class_similarity.frame(measured.runs, [board])
        page = class_similarity.markdown(scores, baseline, footer)
        said = "How alike student and teacher predict, class by class"
        drawn = partial(class_similarity.draw, baseline=baseline)
        data = measured.matrices
        without = absent(labels, data["label"], "saved predictions on every pair of the ranks")
        aside = [*aside, *without]
        yield Drawing("similarity", said, data, drawn, aside=aside, page=page, scores=scores)


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
