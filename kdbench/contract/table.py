"""Outcomes of checks -> what `kdbench check` prints."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence

from kdbench.contract.core import Subject
from kdbench.utils.text import fold

WIDTH = 100  # columns of a line

Outcomes = Mapping[str, str | None]  # check -> None, or why it failed


def lines(subject: Subject, outcomes: Outcomes, facts: Mapping[str, str]) -> str:
    """One method: a line a check, with the fact that holds or the reason why it does not."""
    width = max(map(len, outcomes))
    parts = [f"{subject.name} ({subject.origin})"]
    for name, reason in outcomes.items():
        mark, text = ("pass", facts[name]) if reason is None else ("FAIL", reason)
        parts.append(fold(f"  {mark}  {name:<{width}}  {text}", WIDTH, width + 10))
    return "\n".join([*parts, _count([outcomes])])


def table(results: Mapping[str, Outcomes], groups: Mapping[str, Sequence[str]]) -> str:
    """Methods x checks, a dot is a pass and X a failure; then the names behind the letters and every failure."""
    checks = [name for group in groups.values() for name in group]
    letters = dict(zip(checks, string.ascii_letters, strict=False))
    width = max(map(len, ("method", *results)))

    def row(first: str, cells: Sequence[str]) -> str:
        sizes = [max(len(title), len(group)) for title, group in groups.items()]
        padded = [f"{cell:<{size}}" for cell, size in zip(cells, sizes, strict=True)]
        return "  ".join([f"{first:<{width}}", *padded]).rstrip()

    parts = [
        row("", list(groups)),
        row("method", ["".join(map(letters.__getitem__, g)) for g in groups.values()]),
    ]
    for method, outcomes in results.items():
        marks = {name: "." if name in outcomes and outcomes[name] is None else "X" for name in checks}
        parts.append(row(method, ["".join(map(marks.__getitem__, group)) for group in groups.values()]))
    parts += ["", fold(", ".join(f"{letters[name]} {name}" for name in checks), WIDTH, 0)]
    parts += ["`kdbench check NAME` says what each means", ""]
    for method, outcomes in results.items():
        parts += [fold(f"{method} {name}: {reason}", WIDTH, 4) for name, reason in outcomes.items() if reason]
    return "\n".join([*parts, _count(results.values())])


def _count(results: Iterable[Outcomes]) -> str:
    reasons = [reason for outcomes in results for reason in outcomes.values()]
    return f"{sum(reason is None for reason in reasons)} of {len(reasons)} checks passed"
