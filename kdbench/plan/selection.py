"""What the user chose, resolved to names that exist: methods, pairs, seeds, parameter values."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdbench import method as method_module
from kdbench import registry
from kdbench.errors import KdbenchError, unknown
from kdbench.suites import Pair, Suite

Sets = Mapping[str, Mapping[str, Sequence[Any]]]  # method -> parameter -> values


def select_methods(patterns: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """Names, ``all`` or globs -> registered names in the order given. Raises KdbenchError for an unknown name."""
    chosen: list[str] = []
    for pattern in patterns if patterns is not None else default:
        if pattern == "all":
            chosen += registry.names()
        elif any(c in pattern for c in "*?["):
            matches = fnmatch.filter(registry.names(), pattern)
            if not matches:
                raise unknown("method", pattern, registry.names())
            chosen += matches
        else:
            registry.get(pattern)
            chosen.append(pattern)
    if not chosen:
        raise KdbenchError(f"no method is chosen; known: {', '.join(registry.names())}")
    return list(dict.fromkeys(chosen))


def select_pairs(suite: Suite, texts: Iterable[str] | None) -> list[Pair]:
    """``teacher:student`` texts -> pairs; those that the suite does not list get its plain recipe."""
    if texts is None:
        return list(suite.pairs)
    known = {str(pair): pair for pair in suite.pairs}
    pairs = []
    for text in dict.fromkeys(texts):
        teacher, colon, student = text.partition(":")
        if not (teacher and colon and student):
            raise KdbenchError(
                f"a pair is written teacher:student, got {text!r}; the suite has {', '.join(known)}"
            )
        pairs.append(known.get(text, Pair(teacher, student)))
    if not pairs:
        raise KdbenchError(f"no pair is chosen; the suite has {', '.join(known)}")
    return pairs


def parse_seeds(text: str) -> list[int]:
    """``0-2`` or ``0,3`` or both -> a list of seeds."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise KdbenchError(f"seeds are written like 0-2 or 0,3, got {text!r}") from None
    if not seeds:
        raise KdbenchError(f"no seed in {text!r}; seeds are written like 0-2 or 0,3")
    return list(dict.fromkeys(seeds))


def parse_sets(texts: Iterable[str], methods: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """``method.key=v1,v2`` texts -> values by method and key, parsed by the field's type.

    Raises KdbenchError for a method that is not selected, an unknown key (naming the fields) or a wrong type.
    """
    sets: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        target, equals, values = text.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and name and key):
            raise KdbenchError(f"--set takes method.parameter=value[,value], got {text!r}")
        if name not in methods:
            registry.get(name)
            raise KdbenchError(
                f"--set {text}: {name} is not among the methods of this run; add it to --methods"
            )
        kind = registry.field_type(name, key)
        parsed = [method_module.parse(kind, value, f"{name}.{key}") for value in values.split(",")]
        values_of = sets.setdefault(name, {}).setdefault(key, [])
        values_of += [value for value in parsed if value not in values_of]
    return sets


def check_params(suite: Suite) -> None:
    """Raises KdbenchError where the suite or a pair of it sets a parameter of a method that does not have it."""
    tables = [suite.params, *(pair.params for pair in suite.pairs)]
    for name, params in (item for table in tables for item in table.items()):
        try:
            registry.create(name, params)
        except KdbenchError as error:
            raise KdbenchError(f"suite {suite.name}, params: {error}") from error
