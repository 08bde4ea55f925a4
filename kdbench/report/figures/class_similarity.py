"""Class by class, how alike student and teacher predict: cosines of their mean probability vectors, with kd's.

C classes; P [C, C] holds in row c a model's mean probability vector over the samples of class c. A student that keeps
classes apart as its teacher does has a bright diagonal and, off it, no more than the teacher's own matrix shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from kdbench.report import markdown as pipes
from kdbench.report import predictions
from kdbench.report.figures import style
from kdbench.report.figures.sheet import GAP, Canvas, Drawn, Sheet, left_out
from kdbench.report.leaderboard import Board
from kdbench.results.statistics import summary

TEACHER = "(teacher)"
SCALARS = ["same", "other", "mass"]
MOST = 200  # classes that a figure can show
COLUMNS = ["table", "label", "pair", "measure", "mean", "std", "n", "delta", "low", "high"]
DIGITS = 4  # of the cosines that are saved
SIDES = 0.75, 1.3  # inches of a matrix at least and at most
EDGE = 0.75  # inches above and below all of them
SMALLEST = 0.11  # inches of a class whose number can be read beside the first matrix


class Measured(NamedTuple):
    """What the details of runs say, for all tables.

    runs: table, label, pair, seed and the `scalars`; the teacher's own are under TEACHER. matrices: table, label,
    class and one column per class: the cosines of student (line) with teacher (column), mean over seeds, then over
    the common pairs; the teacher's with itself under TEACHER.
    """

    runs: pd.DataFrame
    matrices: pd.DataFrame


def cosines(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """P of the student, P of the teacher -> [C, C] cosine of student class c with teacher class d.

    NaN in the lines and columns of a class without samples.
    """
    with np.errstate(invalid="ignore"):
        rows, columns = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (student, teacher))
    return rows @ columns.T


def scalars(student: np.ndarray, cosine: np.ndarray) -> dict[str, float]:
    """P of the student and its cosines with the teacher's -> how far it keeps the classes apart.

    same: mean cosine of a class with itself; other: with the other classes, the mean off the diagonal; mass: the mean
    probability, in percent, that the student gives to wrong classes, 1 - the mean of P's diagonal.
    """
    seen = student.sum(axis=1) > 0
    off = ~np.eye(len(cosine), dtype=bool)
    return {
        "same": float(np.nanmean(np.diag(cosine))),
        "other": float(np.nanmean(cosine[off])),
        "mass": float(100 * (1 - np.diag(student)[seen].mean())),
    }


def measure(boards: Sequence[Board], folders: Sequence[Path]) -> Measured:
    """All runs whose details hold the student's class means, against the teacher of their pair.

    Matrices are over the leaderboard's common pairs, so of methods (`style.main`) that have them all, and for at
    most MOST classes.
    """
    runs, matrices = [], []
    for board in boards:
        done, shown = board.table.finished, set(style.main(board.labels))
        teachers = {
            str(pair): p for pair, rows in done.groupby("pair") if (p := _teacher(rows, folders)) is not None
        }
        by_run = {(TEACHER, pair): [cosines(p, p)] for pair, p in teachers.items() if len(p) <= MOST}
        known = {"table": board.table.heading}
        runs += [
            {**known, "label": TEACHER, "pair": pair, **scalars(p, cosines(p, p))}
            for pair, p in teachers.items()
        ]
        readable = done[done["pair"].isin(list(teachers))]
        for run, (student,) in predictions.read(readable, folders, "student_class_means"):
            label, pair = str(run["label"]), str(run["pair"])
            cosine = cosines(student, teachers[pair])
            runs.append(
                {**known, "label": label, "pair": pair, "seed": run["seed"], **scalars(student, cosine)}
            )
            if label in shown and len(cosine) <= MOST:
                by_run.setdefault((label, pair), []).append(cosine)
        matrices += _matrices(board, by_run)
    whole = (
        pd.concat(matrices, ignore_index=True)
        if matrices
        else pd.DataFrame(columns=["table", "label", "class"])
    )
    return Measured(pd.DataFrame(runs, columns=["table", "label", "pair", "seed", *SCALARS]), whole)


def _teacher(rows: pd.DataFrame, folders: Sequence[Path]) -> np.ndarray | None:
    """P of the one teacher of these runs; methods without a teacher are compared with it as well."""
    first = next(predictions.read(rows, folders, "teacher_class_means"), None)
    return None if first is None else first[1][0]


def _matrices(board: Board, by_run: Mapping[tuple[str, str], Sequence[np.ndarray]]) -> list[pd.DataFrame]:
    """label and pair -> cosines of each seed; mean over seeds, then over the common pairs, where all are there."""
    common = [pair for pair in board.common if (TEACHER, pair) in by_run]
    parts = []
    for label in sorted({label for label, _ in by_run}) if common else []:
        if all((label, pair) in by_run for pair in common):
            mean = np.mean([np.mean(by_run[label, pair], axis=0) for pair in common], axis=0)
            one = pd.DataFrame(mean.round(DIGITS), columns=[str(c) for c in range(len(mean))])
            one.insert(0, "class", range(len(mean)))
            parts.append(one.assign(table=board.table.heading, label=label))
    return [part[["table", "label", *part.columns[:-2]]] for part in parts]


def frame(runs: pd.DataFrame, boards: Sequence[Board]) -> pd.DataFrame:
    """Summarise each scalar per pair: mean, std (ddof 1) and n over seeds, and the difference to the baseline.

    The difference is paired and has its 95 % interval. Where ``pair`` is empty, the row is over the common pairs,
    or over the seeds of the only pair.
    """
    parts = []
    for board in boards:
        own = runs[runs["table"] == board.table.heading]
        for scalar in SCALARS if len(own) else []:
            parts += [
                part.assign(table=board.table.heading, measure=scalar) for part in _parts(own, scalar, board)
            ]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def _parts(runs: pd.DataFrame, scalar: str, board: Board) -> list[pd.DataFrame]:
    filled = runs.fillna({"seed": -1})
    scores = filled.pivot(index=["pair", "seed"], columns="label", values=scalar)
    differences = summary.paired(scores, board.baseline) if board.baseline in scores else scores * np.nan
    pairs = sorted(set(runs["pair"]))
    parts = {pair: _summary(scores.loc[pair], differences.loc[pair]) for pair in pairs}
    common = [pair for pair in board.common if pair in parts]
    if len(common) == 1:
        parts[""] = parts[common[0]]
    elif common:
        means = [values.groupby("pair").mean().loc[common] for values in (scores, differences)]
        parts[""] = _summary(*(values.where(values.notna().all()) for values in means))
    return [part.assign(pair=pair) for pair, part in parts.items()]


def _summary(scores: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """[match x label] each -> one line per label."""
    half = summary.half_width(differences.std(), differences.count())
    delta = differences.mean()
    columns = {"mean": scores.mean(), "std": scores.std(), "n": scores.count()}
    columns |= {"delta": delta, "low": delta - half, "high": delta + half}
    return pd.DataFrame(columns).rename_axis("label").reset_index()


def markdown(data: pd.DataFrame, baseline: str, footer: Sequence[str]) -> str:
    """For each table each method's scalars over the common pairs, and the differences to the baseline."""
    gap = f"Δ vs {baseline} [95%]"
    header = ["method", "same class", "other classes", gap, "off-diagonal mass (%)", gap]
    parts = []
    for table, rows in data[data["pair"] == ""].groupby("table", sort=False):
        other = rows[rows["measure"] == "other"].sort_values(["mean", "label"])["label"]
        order = [TEACHER, *(label for label in other if label != TEACHER)]
        entries = {(str(row["label"]), str(row["measure"])): row for row in rows.to_dict("records")}
        lines = [_line(label, entries, compared=label not in (baseline, TEACHER)) for label in order]
        parts += [f"## {table}", pipes.pipes(header, lines)]
    parts.append(
        "P: a model's mean probability vector over the samples of each class. Same class: mean cosine of the "
        "student's and the teacher's vector of a class. Other classes: mean cosine of the student's vector of one "
        "class with the teacher's of another (smaller: classes are further apart). Off-diagonal mass: mean "
        "probability that the student gives to wrong classes. Mean ± std (n) over the common pairs, or over the "
        "seeds of the one pair."
    )
    return pipes.page("Student and teacher, class by class", parts, footer)


def _line(label: str, entries: Mapping[tuple[str, str], Mapping], compared: bool) -> list[str]:
    texts = [label]
    for scalar, form in zip(SCALARS, (".4f", ".4f", ".2f"), strict=True):
        entry = entries[label, scalar]
        texts.append(pipes.spread(entry["mean"], entry["std"], entry["n"], form))
        if scalar != "same":
            gap = pipes.interval(entry["delta"], entry["low"], entry["high"], f"+{form}")
            texts.append(gap if compared else "")
    return texts


def draw(data: pd.DataFrame, sheet: Sheet, baseline: str) -> Drawn:
    """The matrices of `measure`, of as many methods as fit: each above its difference to the baseline's."""
    reading = (
        "Cosine of the student's mean probability vector of one class (line) with the teacher's of another (column), "
        f"mean over seeds and common pairs; below, the difference to {baseline}'s: purple is more alike, orange less. "
        f"Number: mean off the diagonal; the smallest is first, after the teacher with itself and {baseline}. Classes "
        "are ordered by hierarchical clustering of the teacher's matrix."
    )
    cosines = _cosines(data)
    means = {label: float(np.nanmean(c[~np.eye(len(c), dtype=bool)])) for label, c in cosines.items()}
    order = sorted(means, key=lambda label: (label != TEACHER, label != baseline, means[label], label))
    canvas = Canvas(
        sheet, sheet.wide, f"Class-by-class similarity to the teacher: {data['table'].iloc[0]}", [reading]
    )
    across, down, side = canvas.fit(len(order), (0.35, EDGE), SIDES, _step)
    said = left_out(min(across * down, len(order)), len(order), "models")
    figure, (part,) = canvas.draw([EDGE + _step(side) * down], said)
    _draw(part, cosines, {label: means[label] for label in order[: across * down]}, baseline, across, side)
    return figure


def _cosines(block: pd.DataFrame) -> dict[str, np.ndarray]:
    groups = block.groupby("label")
    return {str(label): rows[[str(c) for c in rows["class"]]].to_numpy(float) for label, rows in groups}


def _step(side: float) -> float:
    """Inches from one row to the next: a matrix with its title above its difference."""
    return 2 * side + 0.5


def _draw(
    part: SubFigure,
    cosines: dict[str, np.ndarray],
    shown: dict[str, float],
    baseline: str,
    across: int,
    side: float,
) -> None:
    """shown: label -> its number, in order."""
    classes = class_order(cosines[TEACHER])
    sorted_ = np.ix_(classes, classes)
    base = cosines.get(baseline)
    gaps = {k: cosines[k] - base for k in shown if k != baseline} if base is not None else {}
    most = max(float(np.nanquantile(np.abs(gap), 0.995)) for gap in gaps.values()) if gaps else 1.0
    norms = PowerNorm(0.4, 0, 1), Normalize(-(most or 1.0), most or 1.0)
    height = style.inches(part)[1]
    for i, (label, mean) in enumerate(shown.items()):
        left, top = 0.25 + i % across * (side + GAP), height - 0.45 - i // across * _step(side)
        above = _matrix(part, (left, top - side, side), cosines[label][sorted_], "cividis", norms[0])
        above.axes.set_title(
            f"{style.title(label, int(side / style.LETTER))}\n{mean:.4f}", fontsize=style.READABLE, pad=3
        )
        if i == 0 and side >= SMALLEST * len(classes):
            above.axes.set_yticks(range(len(classes)), [str(c) for c in classes], fontsize=style.READABLE)
            above.axes.tick_params(length=0, pad=1)
        if label in gaps:
            place = (left, top - 2 * side - 0.06, side)
            below = _matrix(part, place, gaps[label][sorted_], "PuOr", norms[1])
    _scale(part, above, 0.12, "cosine")
    if gaps:
        _scale(part, below, 0.57, f"difference to {baseline}", extend="both", ticks=MaxNLocator(4))


def _matrix(
    part: SubFigure, place: tuple[float, float, float], values: np.ndarray, cmap: str, norm: Normalize
) -> AxesImage:
    """An image whose lower left corner is at x, y and which has this side (place, inches)."""
    x, y, side = place
    width, height = style.inches(part)
    ax = part.add_axes((x / width, y / height, side / width, side / height), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax.imshow(values, cmap=cmap, norm=norm)


def _scale(part: SubFigure, image: AxesImage, left: float, name: str, **more: Any) -> None:
    """A colour bar at the part's foot; ``left``: of its width."""
    height = style.inches(part)[1]
    cax = part.add_axes((left, 0.36 / height, 0.3, 0.09 / height))
    bar = part.colorbar(image, cax=cax, orientation="horizontal", **more)
    bar.set_label(name, size=7, labelpad=1)
    bar.ax.tick_params(labelsize=style.READABLE, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]


def class_order(teacher: np.ndarray) -> np.ndarray:
    """[C, C] cosines of the teacher's classes -> classes, like ones side by side; as they are where one has no samples.

    The leaves of an average-linkage clustering by 1 - cosine.
    """
    distance = np.clip(1 - (teacher + teacher.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    if np.isnan(distance).any() or len(distance) < 3:
        return np.arange(len(distance))
    return hierarchy.leaves_list(hierarchy.linkage(squareform(distance, checks=False), "average"))
