"""The setting of a run: all of its identity but method, parameters, teacher and seed.

Two runs may be compared where their settings agree in every fact that both have: a method that trains on the weak view
alone agrees with one that trains on the weak and the strong view, as long as the weak view is the same. A row carries
the facts of its setting as JSON, so that a report can say in words in what two settings differ.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNKNOWN = {"setting": "unknown"}  # of rows that an older version or another tool wrote

Facts = Mapping[str, Any]  # what a setting consists of -> its value


@functools.cache
def parse(text: str) -> dict[str, Any]:
    """The facts that a row's column ``facts`` holds; {} where it is empty."""
    return json.loads(text) if text else {}


def for_pair(facts: Facts, student: str, pair: str) -> dict[str, Any]:
    """One run's facts for a table of several pairs: each named by what it belongs to.

    ``facts``: as `plan.Cell.facts` makes them, or {} (unknown).
    """
    if not facts:
        return dict(UNKNOWN)
    named = {
        "setting": "known",
        "normalisation": facts["normalise"],
        f"student {student}": facts["student"],
        f"recipe of {pair}": facts["recipe"],
        **{f"view {name}": view for name, view in facts["views"].items()},
    }
    if "teacher_logits" in facts:
        named["teacher's logits"] = facts["teacher_logits"]
    return named


def contested(settings: Iterable[Facts]) -> list[str]:
    """The facts that have several values, by name."""
    values: dict[str, set[str]] = {}
    for facts in settings:
        for key, value in facts.items():
            values.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    return sorted(key for key, distinct in values.items() if len(distinct) > 1)


def consistent(settings: Sequence[Facts]) -> list[tuple[dict[str, Any], list[int]]]:
    """Groups of runs that agree with each other: (the contested facts that a group has, positions in ``settings``).

    The last setting opens the first group; the others join the first group that they agree with or open another. A
    run that says nothing of what groups differ in belongs to each of them.
    """
    keys = contested(settings)
    parts = [{key: facts[key] for key in keys if key in facts} for facts in settings]
    groups: list[dict[str, Any]] = []
    for part in reversed(parts):
        fitting = next((group for group in groups if agree(group, part)), None)
        if fitting is None:
            groups.append(dict(part))
        else:
            fitting.update(part)
    return [(group, [i for i, part in enumerate(parts) if part.items() <= group.items()]) for group in groups]


def agree(one: Facts, other: Facts) -> bool:
    """Whether two settings have equal values wherever both have one."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def words(facts: Facts, others: Sequence[Facts]) -> str:
    """What ``facts`` says where ``others`` say something else: 'view weak: pad 2; recipe of a -> b: lr 0.1'."""
    said = []
    for key, value in facts.items():
        rivals = [other[key] for other in others if key in other and other[key] != value]
        if rivals:
            said.append(f"{key}: {_differing(value, rivals)}")
    return "; ".join(said)


def _differing(value: Any, rivals: Sequence[Any]) -> str:
    """The leaves of ``value`` that differ from those of some rival; all of it where it has none."""
    mine, theirs = _leaves(value), [_leaves(rival) for rival in rivals]
    names = sorted(
        {name for rival in theirs for name in mine.keys() | rival.keys() if mine.get(name) != rival.get(name)}
    )
    return ", ".join(f"{name} {mine.get(name, 'not set')}".strip() for name in names)


def _leaves(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        nested = [_leaves(part, f"{name}.{key}".strip(".")) for key, part in value.items()]
        return {key: leaf for part in nested for key, leaf in part.items()}
    return {name: value if isinstance(value, str) else json.dumps(value)}
