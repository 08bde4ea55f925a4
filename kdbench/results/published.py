"""What papers and repositories print: published.csv, one line a printed number, and how to find one.

method, variant: as kdbench names them; the variant is what differs from the method's usual setting on that data set,
    in the words of the store's column, keys in order. `ce` is the plain student, `teacher` the teacher itself; methods
    that kdbench does not have keep their own name in lower case.
teacher, student: the names of kdbench's models and suites ('' where there is none).
dataset, metric, value, std: percent, as printed.
runs: how many the value is the mean of (NaN: not said). rule: the epoch that is printed: last, best (chosen on the
    test set), unknown.
protocol: crd where the source trains by the recipe that kdbench's suite of this data set follows (CIFAR-100: CRD's,
    arXiv:1910.10699, with its shared teachers; ImageNet: 100 epochs in steps, torchvision's teachers; Tiny-ImageNet:
    CKTF's), twoview where by MLKD's (suite cifar100-twoview: the same teachers, two views, 480 or 960 epochs),
    other where recipe, teacher or network is another or is not said.
origin: own (measured by the source), quoted (copied by it; rule, runs and protocol are those of the number's own
    source), log (one released run behind a printed mean), user (a rerun reported in an issue thread).
key, source: a short and a full name of the source. *_as_printed: the source's word, where ours is another.
note: what a reader must know of the row, with its evidence. It contains "rule probably" (PROBABLY) where the rule is
    inferred from code or another's word: such a number is compared as one of an unknown rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kdbench.errors import KdbenchError

FILE = Path(__file__).parent / "published.csv"
TEXT = (
    "method variant teacher student dataset metric rule protocol origin key source method_as_printed "
    "teacher_as_printed student_as_printed metric_as_printed note"
).split()
COLUMNS = [*TEXT[:6], "value", "std", "runs", *TEXT[6:]]
CHOICES = {
    "rule": ("last", "best", "unknown"),
    "protocol": ("crd", "twoview", "other"),
    "origin": ("own", "quoted", "log", "user"),
}
PRINTED = ("own", "quoted")
PROBABLY = "rule probably"


class Name(NamedTuple):
    """What a number is of."""

    dataset: str
    teacher: str
    student: str
    method: str
    variant: str = ""
    metric: str = "top1"


class Number(NamedTuple):
    """One value, in percent, with the sources that measured it (else those that quote it)."""

    value: float
    std: float
    runs: float
    rule: str
    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()
    sure: bool = True  # of the rule

    @property
    def rule_said(self) -> str:
        """The rule in words: 'last', 'probably best'."""
        return self.rule if self.sure else f"probably {self.rule}"


@dataclass(frozen=True)
class Published:
    """All that is printed of one thing: several numbers where the sources contradict each other; lowest first."""

    numbers: tuple[Number, ...]

    @property
    def low(self) -> float:
        """The lowest value."""
        return self.numbers[0].value

    @property
    def high(self) -> float:
        """The highest value."""
        return self.numbers[-1].value

    @property
    def keys(self) -> tuple[str, ...]:
        """The BibTeX keys of all sources, each once."""
        return tuple(dict.fromkeys(key for number in self.numbers for key in number.keys))

    def __str__(self) -> str:
        return f"{self.low:.2f}" if self.low == self.high else f"{self.low:.2f}–{self.high:.2f}"


def load(file: Path = FILE) -> pd.DataFrame:
    """All rows, texts as str and numbers as float. Raises KdbenchError for other columns or words."""
    text = dict.fromkeys(TEXT, str)
    try:
        rows = pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"std": "", "runs": ""})
        rows = rows.astype({"value": float, "std": float, "runs": float})
    except (OSError, ValueError, KeyError) as error:
        raise KdbenchError(f"{file} cannot be read ({error}); install kdbench again") from error
    if list(rows.columns) != COLUMNS:
        raise KdbenchError(f"{file} must have the columns {', '.join(COLUMNS)}; install kdbench again")
    for column, allowed in CHOICES.items():
        if wrong := set(rows[column]) - set(allowed):
            raise KdbenchError(f"{file}: {column} {min(wrong)!r} is none of {', '.join(allowed)}")
    return rows


def book(
    rows: pd.DataFrame, protocol: str = "crd", origins: Iterable[str] = PRINTED
) -> dict[Name, Published]:
    """The rows of one protocol and of these origins, by what they are of."""
    chosen = rows[(rows["protocol"] == protocol) & rows["origin"].isin(list(origins))]
    groups: dict[Name, list[dict]] = {}
    for row in chosen.sort_values("value", kind="stable").to_dict("records"):
        groups.setdefault(Name(*(row[field] for field in Name._fields)), []).append(row)
    return {name: Published(_numbers(group)) for name, group in groups.items()}


def find(numbers: Mapping[Name, Published], name: Name) -> Name | None:
    """Under which name something is printed; a method that needs no teacher is, whatever ``name`` says, without."""
    name = name._replace(variant=" ".join(sorted(name.variant.split())))
    return next((key for key in (name, name._replace(teacher="")) if key in numbers), None)


def lookup(numbers: Mapping[Name, Published], name: Name) -> Published | None:
    """What is printed of ``name``, if anything is."""
    key = find(numbers, name)
    return None if key is None else numbers[key]


def sources(rows: pd.DataFrame, keys: Iterable[str]) -> dict[str, str]:
    """key -> the full names of the sources under it (those that measured, where there are any), by key."""
    result = {}
    for key in sorted(set(keys), key=str.lower):
        named = rows[rows["key"] == key]
        own = named[named["origin"] == "own"]
        result[key] = "; ".join((own if len(own) else named)["source"].unique())
    return result


def _numbers(rows: Iterable[Mapping]) -> tuple[Number, ...]:
    """Rows in rising value -> one number a value: what any of its rows knows of it."""
    result = []
    for value, group in itertools.groupby(rows, key=lambda row: row["value"]):
        same = list(group)
        measured = [row["key"] for row in same if row["origin"] == "own"] or [row["key"] for row in same]
        rule, sure = _rule(same)
        std, runs = (_first(row[field] for row in same) for field in ("std", "runs"))
        notes = dict.fromkeys(row["note"] for row in same if row["note"])
        result.append(Number(value, std, runs, rule, tuple(dict.fromkeys(measured)), tuple(notes), sure))
    return tuple(result)


def _rule(rows: Iterable[Mapping]) -> tuple[str, bool]:
    """The rule that one of the rows knows, and whether for sure; a sure one first."""
    known = [(row["rule"], PROBABLY not in row["note"]) for row in rows if row["rule"] != "unknown"]
    return max(known, key=lambda each: each[1], default=("unknown", True))


def _first(values: Iterable[float]) -> float:
    return next((value for value in values if not math.isnan(value)), math.nan)
