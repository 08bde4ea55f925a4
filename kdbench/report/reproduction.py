"""Our numbers and the published ones: which agree, which differ, which are undecided.

Like is compared with like. A published last epoch is compared with our last; a best of all epochs with our best (a
diagnostic that is used nowhere else), where every epoch after the last milestone was evaluated; a number of which the
rule is not known, or only probably, is bracketed by both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdbench import suites
from kdbench.data.catalog import CATALOG
from kdbench.report.tables import ARROW, Table
from kdbench.report.verdicts import Ours, compare, judged, mean, noise_of, rule_of, verdicts_of
from kdbench.results import published
from kdbench.results.published import Name, Number, Published
from kdbench.results.statistics import summary
from kdbench.results.statistics.reproduced import AGREES, DIFFERS, MARGIN, UNDECIDED
from kdbench.teachers.expected import falls_short
from kdbench.utils.status import Status

FOLLOWERS = ("cifar100", "cifar100-twoview", "imagenet", "tiny-imagenet")  # suites that follow the literature
VERDICTS = AGREES, DIFFERS, UNDECIDED
SPARSE = "no best epoch: no verdict"  # not every late epoch was evaluated
NO_NOISE = "no two runs: no verdict"  # of any entry of the table
SETTING, PAIR = ["label", "method", "variant"], ["pair", "teacher", "student"]
ENTRY = PAIR + SETTING
FACTS = (
    "table dataset protocol metric n mean std best_mean best_std inflation diverged skipped of printed low high values "
    "rule value value_std runs keys reruns compared delta se p_holm verdict comparable why note remarks"
).split()
COLUMNS = ENTRY + FACTS


@dataclass(frozen=True)
class Literature:
    """What the report must know of a suite: its recipe's id and length, and its pairs."""

    suite: str
    recipe_id: str
    epochs: int
    milestone: int  # the last one: epochs that are trained before the last decay
    dataset: str
    protocol: str  # of the published numbers that the suite follows
    pairs: frozenset[tuple[str, str]]  # (teacher, student)

    def why_not(self, table: Table) -> str:
        """Why no run of this table can be compared with published numbers, or ''.

        The recipe's id holds epochs and precision too.
        """
        if table.recipe_id == self.recipe_id:
            return self.other_images(table)
        if table.epochs != str(self.epochs):
            return f"{table.epochs} epochs, the literature's recipe has {self.epochs}"
        return f"the recipe is not that of suite {self.suite}"

    def other_images(self, table: Table) -> str:
        """Why the table's images are not the literature's, or '': by the split's hash."""
        true = CATALOG[self.dataset].test_split_id
        if not true:
            return f"kdbench does not know the hash of {self.dataset}'s true images"
        if (table.finished["split_id"] == "").any():
            return "the rows do not say on which images"
        same = (table.finished["split_id"] == true).all()
        return "" if same else f"the images are not those of {self.dataset} (some of them, or others)"

    def has(self, teacher: str, student: str) -> bool:
        """Whether the suite has the pair (or, without a teacher, the student), and so a recipe for it."""
        return any(s == student and teacher in ("", t) for t, s in self.pairs)


def literature(suite: str) -> Literature | None:
    """What the suite of that name says, where it follows the literature."""
    if suite not in FOLLOWERS:
        return None
    own = suites.load(suite)
    return Literature(
        suite,
        own.recipe.id,
        own.recipe.reference_epochs,
        own.recipe.milestones[-1],
        own.dataset.name,
        "twoview" if own.recipe.train_views else "crd",
        frozenset((pair.teacher, pair.student) for pair in own.pairs),
    )


def frame(suite: str, tables: Sequence[Table], curves: pd.DataFrame | None = None) -> pd.DataFrame:
    """One line for each table of the test split, pair, label and metric, and one for each pair's teacher.

    n, mean, std: last epochs of our runs (n = 0: none); inflation: mean of best evaluated minus last epoch; printed:
    the published number or range, of what (`of`), each with rule and sources (values); rule, value, value_std, runs:
    those of the nearest number; compared: ours by that rule; delta = compared - value; se, p_holm: of that. verdict: ''
    where nothing is published, nothing was run or comparable is False, for the reason `why`; note: of our teacher;
    remarks: on the published numbers. Labels with user overrides are there only where such a variant is published.
    curves: as `store` keeps them; without them no best epoch of ours is known to be the best of all.
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
            whole = (
                evaluated(table, curves, follows.milestone) if follows and curves is not None else frozenset()
            )
            entries = [*_teacher_entries(table), *_entries(table, whole)]
            dataset = table.dataset.partition("#")[0]
            same = {"table": table.heading, "dataset": dataset, "protocol": protocol}
            compared = pd.DataFrame([same | _line(entry, dataset, follows, why, books) for entry in entries])
            for metric in ("top1", "top5"):
                _decide(compared, metric, table)
            lines.append(compared)
    if not lines:
        return pd.DataFrame(columns=COLUMNS, dtype=object)
    result = pd.concat(lines, ignore_index=True).reindex(columns=COLUMNS)
    known = (result["printed"] != "").groupby([result["table"], result["label"]]).transform("any")
    return result[(result["variant"] == "") | known].reset_index(drop=True)


def _decide(lines: pd.DataFrame, metric: str, table: Table) -> None:
    """Fill in the verdicts of one table and metric (Holm is over them), and the difference and error behind each."""
    if lines.empty:
        return
    tried = lines[(lines["metric"] == metric) & lines["open"].astype(bool)]
    if tried.empty:
        return
    key = tried["label"] + ARROW + tried["of"]  # a plain student is in many pairs and counts once
    decided = verdicts_of(tried[~key.duplicated()], noise_of(table, metric))
    decided = decided.set_axis(key[~key.duplicated()]).loc[key].set_axis(tried.index)
    for name, column in {"ours": "compared", "delta": "delta", "se": "se", "p_holm": "p_holm"}.items():
        lines.loc[tried.index, column] = decided[name].where(decided[name].notna(), tried[column])
    lines.loc[tried.index, "verdict"] = decided["verdict"].where(decided["verdict"] != "", NO_NOISE)


def evaluated(table: Table, curves: pd.DataFrame, milestone: int) -> frozenset[str]:
    """The cells of which every epoch after ``milestone`` was evaluated."""
    seen = curves[(curves["term"] == "top1") & (curves["epoch"] > milestone)]
    counts = seen.groupby("cell_id")["epoch"].nunique()
    rows = table.finished.drop_duplicates("cell_id").set_index("cell_id")
    late = rows["epochs_done"] - milestone
    return frozenset(late.index[(late > 0) & (counts.reindex(late.index) == late)])


def _entries(table: Table, whole: frozenset[str]) -> list[dict]:
    """For every pair, label and metric: what our runs reached. ``whole``: see `evaluated`."""
    rows = table.rows
    keys = [rows["pair"], rows["label"]]
    counts = pd.DataFrame(
        {s.value: (rows["status"] == s).groupby(keys).sum() for s in (Status.DIVERGED, Status.SKIPPED)}
    )
    teachers = rows.groupby(["pair", "label"])[["teacher_top1", "teacher_expected"]].last()
    entries = counts.join(teachers).reset_index()
    pairs, settings = rows[PAIR].drop_duplicates("pair"), rows[SETTING].drop_duplicates("label")
    grid = pairs.merge(settings, how="cross").merge(entries, "left", ["pair", "label"])
    grid = grid.sort_values(["pair", "label"])
    grid[["diverged", "skipped"]] = grid[["diverged", "skipped"]].fillna(0).astype(int)
    runs = dict(list(table.finished.groupby(["pair", "label"])))
    lines = []
    for line in grid.to_dict("records"):
        own = runs.get((line["pair"], line["label"]), rows.iloc[:0])
        inflation = (own["top1_best"] - own["top1"]).mean()
        lines.append({**line, "metric": "top1", "ours": _ours(own, whole), "inflation": inflation})
        top5 = Ours(tuple(own["top5"].dropna()))
        lines.append({**line, "metric": "top5", "ours": top5, "inflation": math.nan})
    return lines


def _ours(runs: pd.DataFrame, whole: frozenset[str]) -> Ours:
    """Top-1 of one entry; no best epoch unless every run has one."""
    last, best = tuple(runs["top1"].dropna()), tuple(runs["top1_best"].dropna())
    return Ours(last, best if len(best) == len(last) else (), runs["cell_id"].isin(whole).all())


def _teacher_entries(table: Table) -> list[dict]:
    """For every pair: the measured accuracy of its teacher, one network."""
    known = table.rows[table.rows["teacher_top1"].notna()].drop_duplicates("pair", keep="last")
    name = {"label": "teacher", "method": "teacher", "variant": "", "metric": "top1"}
    rest = {"diverged": 0, "skipped": 0, "inflation": math.nan}
    return [
        {**{key: row[key] for key in PAIR}, **name, **rest, "ours": Ours((row["teacher_top1"],))}
        for row in known.sort_values("pair").to_dict("records")
    ]


def _line(
    entry: Mapping,
    dataset: str,
    follows: Literature | None,
    why: str,
    books: Mapping[str, Mapping[Name, Published]],
) -> dict[str, Any]:
    """The entry, what is published of it, and how they compare."""
    ours: Ours = entry["ours"]
    is_teacher = entry["method"] == "teacher"
    if follows and not why and not follows.has(entry["teacher"], entry["student"]):
        why = "the suite has no recipe for this pair"
    texts = ["of", "printed", "values", "rule", "keys", "reruns", "verdict", "note", "remarks"]
    line: dict[str, Any] = dict.fromkeys(texts, "")
    numbers = ["low", "high", "value", "value_std", "runs", "compared", "delta", "se", "p_holm", "fair_best"]
    line |= {**dict.fromkeys(numbers, math.nan), "judged_by": "", "between": False, "open": False}
    line |= {key: entry[key] for key in [*ENTRY, "metric", "diverged", "skipped", "inflation"]}
    line |= {**_summary(ours), "why": why, "comparable": not why}
    student = "" if is_teacher else entry["student"]
    name = Name(dataset, entry["teacher"], student, entry["method"], entry["variant"], entry["metric"])
    if again := published.lookup(books["reruns"], name):
        line["reruns"] = ", ".join(_quoted(number) for number in again.numbers)
    book = books["teacher" if is_teacher else "numbers"]
    key = published.find(book, name)
    if key is None:
        return line
    printed = book[key]
    line |= {"of": ARROW.join(filter(None, (key.teacher, key.student))), "printed": str(printed)}
    line |= {"low": printed.low, "high": printed.high}
    line |= {
        "keys": " ".join(printed.keys),
        "values": "; ".join(_quoted(number) for number in printed.numbers),
    }
    result = compare(ours, printed.numbers)
    near = result.nearest
    line |= {"rule": near.rule_said, "judged_by": rule_of(near), "remarks": _remarks(printed)}
    line |= {"value": near.value, "value_std": near.std, "runs": near.runs, "between": result.between}
    line |= {"fair_best": mean(ours.best) if ours.whole else math.nan}
    line |= {"compared": result.compared, "delta": result.delta}
    if not (why or is_teacher) and ours.n + entry["diverged"]:
        diverged = f"{entry['diverged']} diverged: no verdict" if entry["diverged"] else ""
        said = diverged or ("" if judged(ours, near) else SPARSE)
        line |= {"verdict": said, "open": not said, "note": _weak_teacher(entry)}
    return line


def _summary(ours: Ours) -> dict[str, float]:
    mean, std, n = summary.summary(ours.last)
    best = summary.summary(ours.best)
    return {"n": n, "mean": mean, "std": std, "best_mean": best.mean, "best_std": best.std}


def _remarks(printed: Published) -> str:
    """Join the sources' notes: '[CTKD] rule probably best: ...'."""
    noted = (f"[{' '.join(number.keys)}] {note}" for number in printed.numbers for note in number.notes)
    return "; ".join(dict.fromkeys(noted))


def _quoted(number: Number) -> str:
    """Describe a number and its sources: '75.51 ± 0.18 last, 5 runs [CRD]'."""
    spread = "" if math.isnan(number.std) else f" ± {number.std:g}"
    runs = "" if math.isnan(number.runs) else f", {number.runs:g} run{'s' * (number.runs > 1)}"
    return f"{number.value:g}{spread} {number.rule_said}{runs} [{' '.join(number.keys)}]"


def _weak_teacher(entry: Mapping) -> str:
    """Say what a teacher reaches that is weaker than expected, else ''."""
    reached, expected = entry["teacher_top1"], entry["teacher_expected"]
    if not falls_short(reached, expected):
        return ""
    return f"teacher {entry['teacher']} reaches {reached:.2f}, expected {expected:.2f}"


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
    entries = lines[lines["verdict"].isin(VERDICTS)]
    said = ["No published number is tested here."]
    if len(entries):
        counts = entries["verdict"].value_counts().reindex(list(VERDICTS), fill_value=0)
        said = [
            f"Published numbers: {counts[AGREES]} of {len(entries)} agree (shown to be within {MARGIN:g} points), "
            f"{counts[DIFFERS]} differ, {counts[UNDECIDED]} undecided."
        ]
    if weak := int((entries["note"] != "").sum()):
        said.append(f"{weak} of the {len(entries)} with a teacher below the expected accuracy.")
    untested = lines[lines["comparable"] & ~lines["verdict"].isin(VERDICTS)]
    for verdict, count in untested["verdict"].value_counts().sort_index().items():
        said.append(f"{count} more comparable, but {verdict}.")
    for why, count in lines["why"][lines["why"] != ""].value_counts().sort_index().items():
        said.append(f"{count} not comparable, published values for orientation only: {why}.")
    return said
