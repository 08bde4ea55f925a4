"""Published numbers as text: a table per data set, protocol, metric and pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from kdbench.errors import KdbenchError, unknown
from kdbench.results import published
from kdbench.results.published import Name, Number, Published
from kdbench.suites.pairs import pair_name, usual_spelling
from kdbench.utils.method_facts import matching, shipped
from kdbench.utils.text import fold, grid

HEADINGS = ("method", "value", "runs", "epoch", "sources")
EXPLAINED = (
    "Percent, as printed. epoch: the one that is printed; the best one was chosen on the test set. Protocol crd is the "
    "recipe of kdbench's suite of this data set, twoview that of cifar100-twoview, other any other. All columns and "
    "notes: "
)

Names = Sequence[str] | None


def text(methods: Names = None, pairs: Names = None, dataset: Names = None) -> str:
    """The numbers of these names or globs (None: of all), highest first, and their sources.

    The table of a pair also has what is of its teacher or of its student alone. Raises KdbenchError for an unknown name
    and where nothing is published.
    """
    rows = published.load()
    rows = rows[rows["dataset"].isin(_chosen("data set", dataset, rows["dataset"]))]
    known = [usual_spelling(pair) for pair in pairs] if pairs is not None else None
    wanted = set(_chosen("pair", known, [pair_name(*pair) for pair in _pairs(rows)]))
    named = rows["method"].isin(_chosen("method", methods, rows["method"]))
    tables: list[str] = []
    keys: set[str] = set()
    for (data, protocol, metric), group in rows.groupby(["dataset", "protocol", "metric"], sort=False):
        book = published.book(group[named[group.index]], protocol)
        for teacher, student in _pairs(group):
            numbers = list(_numbers(book, teacher, student)) if pair_name(teacher, student) in wanted else []
            if numbers:
                what = metric.replace("top", "top-")
                heading = f"{data}, {pair_name(teacher, student)}, {what}, protocol {protocol}"
                tables.append(f"{heading}\n{grid([HEADINGS, *map(_line, numbers)])}")
                keys |= {key for _, number in numbers for key in number.keys}
    if not tables:
        raise KdbenchError(
            "nothing is published of these methods on these pairs; leave out one of the options"
        )
    used = rows[named & (rows["teacher"].eq("") | rows["student"].eq("") | _pair_names(rows).isin(wanted))]
    sources = [f"{key}: {source}" for key, source in published.sources(used, keys).items()]
    notes = [fold(line) for line in [*sources, f"{EXPLAINED}{published.FILE}"]]
    return "\n\n".join([*tables, "\n".join(notes)])


def _chosen(kind: str, patterns: Names, column: Iterable[str]) -> list[str]:
    """The names of a column that the patterns mean."""
    names = list(dict.fromkeys(column))
    for pattern in patterns or ():
        if not set(matching([pattern], names)) & set(names):
            if pattern in shipped():
                raise KdbenchError(f"kdbench knows no published number of {pattern} on these data")
            raise unknown(f"published {kind}", pattern, names)
    return names if patterns is None else matching(patterns, names)


def _pair_names(rows: pd.DataFrame) -> pd.Series:
    named = zip(rows["teacher"], rows["student"], strict=True)
    return pd.Series([pair_name(*pair) for pair in named], rows.index)


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of which something is published, as they come."""
    both = rows[(rows["teacher"] != "") & (rows["student"] != "")]
    return list(dict.fromkeys(zip(both["teacher"], both["student"], strict=True)))


def _numbers(book: Mapping[Name, Published], teacher: str, student: str) -> Iterator[tuple[Name, Number]]:
    """What is printed of a pair, its teacher and its student, highest first."""
    found = [
        (name, number)
        for name, printed in book.items()
        if name.teacher in ("", teacher) and name.student in ("", student)
        for number in printed.numbers
    ]
    yield from sorted(found, key=lambda each: -each[1].value)


def _line(each: tuple[Name, Number]) -> tuple[str, ...]:
    name, number = each
    spread = "" if math.isnan(number.std) else f" ± {number.std:g}"
    runs = "" if math.isnan(number.runs) else f"{number.runs:g}"
    value = f"{number.value:.2f}{spread}"
    return f"{name.method} {name.variant}".strip(), value, runs, number.rule_said, " ".join(number.keys)
