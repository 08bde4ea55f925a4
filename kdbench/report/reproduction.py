"""Our numbers beside the published ones: which are reproduced.

A published number is compared with ours by its own rule: one of a best epoch with the best of ours that was evaluated
(a diagnostic that is used nowhere else), any other with our last epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from kdbench import published
from kdbench.published import Name, Number, Published
from kdbench.report.frames import ARROW, Table
from kdbench.report.literature import Literature, literature

TOLERANCE = 2  # standard errors
SLACK = 0.05  # points by which a teacher may miss the expected accuracy
VERDICTS = WITHIN, LOWER, HIGHER = "within", "lower", "higher"
ONE_RUN = "n = 1: no verdict"
SETTING, PAIR = ["label", "method", "variant"], ["pair", "teacher", "student"]
CELL = PAIR + SETTING
FACTS = (
    "table dataset protocol metric n mean std best_mean best_std inflation diverged skipped of printed low high values "
    "rule runs keys reruns compared delta se verdict comparable why note"
).split()
COLUMNS = CELL + FACTS


class Ours(NamedTuple):
    """Mean and std (ddof 1) over n runs of the last epoch, and of the best evaluated one."""

    n: int
    mean: float
    std: float
    best_mean: float = math.nan
    best_std: float = math.nan

    def by(self, rule: str) -> tuple[float, float]:
        """Mean and std by the rule of a published number."""
        return (self.best_mean, self.best_std) if rule == "best" else (self.mean, self.std)


class Comparison(NamedTuple):
    """Ours by the rule of the nearest published number, the difference to it, its standard error and the verdict."""

    compared: float
    delta: float
    se: float
    verdict: str
    nearest: Number


def compare(ours: Ours, numbers: Sequence[Number]) -> Comparison:
    """Verdict: within 2 standard errors of a published number or between two; else higher or lower than all.

    The standard error is of the difference: of our n runs and, where its std and runs are printed, of theirs.
    """
    tried = []
    for number in numbers:
        mean, _ = ours.by(number.rule)
        tried.append(Comparison(mean, mean - number.value, _standard_error(ours, number), "", number))
    known = sorted((c for c in tried if not math.isnan(c.delta)), key=lambda c: abs(c.delta))
    if not known:
        return tried[0]._replace(verdict="no best epoch: no verdict")
    near = any(abs(c.delta) <= TOLERANCE * c.se + 1e-9 for c in known)
    between = min(c.delta for c in known) < 0 < max(c.delta for c in known)
    nearest = known[0]
    if ours.n < 2:
        return nearest._replace(verdict=ONE_RUN)
    return nearest._replace(verdict=WITHIN if near or between else HIGHER if nearest.delta > 0 else LOWER)


def _standard_error(ours: Ours, number: Number) -> float:
    """NaN where we have one run."""
    if ours.n < 2:
        return math.nan
    theirs = number.std**2 / number.runs
    return math.sqrt(ours.by(number.rule)[1] ** 2 / ours.n + (0.0 if math.isnan(theirs) else theirs))


def frame(suite: str, tables: Sequence[Table]) -> pd.DataFrame:
    """A line for each table of the test split, pair, label and metric, and one for each pair's teacher.

    n, mean, std: last epochs of our runs (n = 0: none); inflation: mean of best evaluated minus last epoch; printed:
    the published number or range, of what (`of`), each with rule and sources (values); rule, runs: those of the
    nearest number; compared: ours by that rule; delta = compared - nearest. verdict: '' where nothing is published,
    nothing was run or comparable is False, for the reason `why`; note: what else is to be known. Labels with user
    overrides stand only where such a variant is published.
    """
    rows = published.load()
    follows = literature(suite)
    protocol = follows.protocol if follows else "crd"
    books = {
        "numbers": published.book(rows, protocol),
        "teacher": published.book(rows),
        "reruns": published.book(rows, protocol, origins=["user"]),
    }
    lines = []
    for table in tables:
        if table.split == "test":
            own = f"{table.epochs} epochs of suite {suite}, which is not the literature's recipe"
            why = follows.why_not(table) if follows else own
            cells = [*_teacher_cells(table), *_cells(table)]
            same = {"table": table.heading, "dataset": table.dataset, "protocol": protocol}
            lines += [same | _line(cell, table.dataset, follows, why, books) for cell in cells]
    result = pd.DataFrame(lines, columns=COLUMNS)
    known = (result["printed"] != "").groupby([result["table"], result["label"]]).transform("any")
    return result[(result["variant"] == "") | known].reset_index(drop=True)


def _cells(table: Table) -> list[dict]:
    """For every pair, label and metric: what our runs reached."""
    rows = table.rows
    values = rows[["top1", "top5", "top1_best"]].assign(inflation=rows["top1_best"] - rows["top1"])
    groups = values.where(rows["status"] == "ok").groupby([rows["pair"], rows["label"]])
    cells = groups.agg(["count", "mean", "std"])
    cells.columns = cells.columns.map(":".join)
    for status in ("diverged", "skipped"):
        cells[status] = (rows["status"] == status).groupby([rows["pair"], rows["label"]]).sum()
    teachers = rows.groupby(["pair", "label"])[["teacher_top1", "teacher_expected"]].last()
    cells = cells.join(teachers).reset_index()
    pairs, settings = rows[PAIR].drop_duplicates("pair"), rows[SETTING].drop_duplicates("label")
    whole = pairs.merge(settings, how="cross").merge(cells, "left", ["pair", "label"])
    whole = whole.sort_values(["pair", "label"])
    counts = ["top1:count", "top5:count", "top1_best:count", "diverged", "skipped"]
    whole[counts] = whole[counts].fillna(0).astype(int)
    lines = []
    for line in whole.to_dict("records"):
        complete = line["top1_best:count"] == line["top1:count"]
        best = (line["top1_best:mean"], line["top1_best:std"]) if complete else ()
        for metric, more, inflation in (("top1", best, line["inflation:mean"]), ("top5", (), math.nan)):
            ours = Ours(*(line[f"{metric}:{name}"] for name in ("count", "mean", "std")), *more)
            lines.append({**line, "metric": metric, "ours": ours, "inflation": inflation})
    return lines


def _teacher_cells(table: Table) -> list[dict]:
    """For every pair: the measured accuracy of its teacher, one network."""
    known = table.rows[table.rows["teacher_top1"].notna()].drop_duplicates("pair", keep="last")
    name = {"label": "teacher", "method": "teacher", "variant": "", "metric": "top1"}
    rest = {"diverged": 0, "skipped": 0, "inflation": math.nan}
    return [
        {**{key: row[key] for key in PAIR}, **name, **rest, "ours": Ours(1, row["teacher_top1"], math.nan)}
        for row in known.sort_values("pair").to_dict("records")
    ]


def _line(
    cell: Mapping,
    dataset: str,
    follows: Literature | None,
    why: str,
    books: Mapping[str, Mapping[Name, Published]],
) -> dict[str, Any]:
    """The cell, what is published of it, and how they compare."""
    ours: Ours = cell["ours"]
    is_teacher = cell["method"] == "teacher"
    if follows and not why and not follows.has(cell["teacher"], cell["student"]):
        why = "the suite has no recipe for this pair"
    texts = ["of", "printed", "values", "rule", "keys", "reruns", "verdict", "note"]
    line: dict[str, Any] = dict.fromkeys(texts, "")
    line |= dict.fromkeys(["low", "high", "runs", "compared", "delta", "se"], math.nan)
    line |= {key: cell[key] for key in [*CELL, "metric", "diverged", "skipped", "inflation"]}
    line |= {**ours._asdict(), "why": why, "comparable": not why}
    student = "" if is_teacher else cell["student"]
    name = Name(dataset, cell["teacher"], student, cell["method"], cell["variant"], cell["metric"])
    if again := published.lookup(books["reruns"], name):
        line["reruns"] = ", ".join(_told(number) for number in again.numbers)
    book = books["teacher" if is_teacher else "numbers"]
    key = published.find(book, name)
    if key is None:
        return line
    found = book[key]
    line |= {"of": ARROW.join(filter(None, (key.teacher, key.student))), "printed": str(found)}
    line |= {"low": found.low, "high": found.high}
    line |= {"keys": " ".join(found.keys), "values": "; ".join(_told(number) for number in found.numbers)}
    result = compare(ours, found.numbers)
    line |= {"rule": result.nearest.rule, "runs": result.nearest.runs}
    line |= {"compared": result.compared, "delta": result.delta, "se": result.se}
    if not (why or is_teacher) and ours.n + cell["diverged"]:
        diverged = f"{cell['diverged']} diverged: no verdict" if cell["diverged"] else ""
        line |= {"verdict": diverged or result.verdict, "note": _weak_teacher(cell)}
    return line


def _told(number: Number) -> str:
    """'75.51 ± 0.18 last, 5 runs [CRD]'"""
    spread = "" if math.isnan(number.std) else f" ± {number.std:g}"
    runs = "" if math.isnan(number.runs) else f", {number.runs:g} run{'s' * (number.runs > 1)}"
    return f"{number.value:g}{spread} {number.rule}{runs} [{' '.join(number.keys)}]"


def _weak_teacher(cell: Mapping) -> str:
    reached, expected = cell["teacher_top1"], cell["teacher_expected"]
    if not reached < expected - SLACK:  # NaN: not known
        return ""
    return f"teacher {cell['teacher']} reaches {reached:.2f}, expected {expected:.2f}"


def ran(data: pd.DataFrame) -> pd.DataFrame:
    """The top-1 lines of methods that were run and are published, each run once (a plain student is in many pairs)."""
    run = (data["n"] + data["diverged"] > 0) & (data["method"] != "teacher")
    lines = data[run & (data["printed"] != "") & (data["metric"] == "top1")]
    alone = ~lines["of"].str.contains(ARROW)
    return lines[~(alone & lines.duplicated(["table", "label", "of"]))]


def headline(data: pd.DataFrame) -> list[str]:
    """'k of m published numbers reproduced', and what is not in m and why."""
    lines = ran(data)
    if lines.empty:
        return ["Nothing is published, by this suite's protocol, of what was run."]
    cells = lines[lines["verdict"].isin(VERDICTS)]
    kept = int((cells["verdict"] == WITHIN).sum())
    said = ["No published number is tested here."]
    if len(cells):
        said = [f"{kept} of {len(cells)} published numbers reproduced within {TOLERANCE} standard errors."]
    if weak := int((cells["note"] != "").sum()):
        said.append(f"{weak} of the {len(cells)} with a teacher below the expected accuracy.")
    untested = lines[lines["comparable"] & ~lines["verdict"].isin(VERDICTS)]
    for verdict, count in untested["verdict"].value_counts().sort_index().items():
        said.append(f"{count} more comparable, but {verdict}.")
    for why, count in lines["why"][lines["why"] != ""].value_counts().sort_index().items():
        said.append(f"{count} not comparable, published values for orientation only: {why}.")
    return said
