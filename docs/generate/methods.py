"""The methods: a list by family, an overview, and a section per method."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docs.generate.markdown import code, fence, prose, table
from kdbench import registry
from kdbench.bench.cost_table import FILE
from kdbench.method import OPTIONS, Method, field_types, parameter_types
from kdbench.utils import needs
from kdbench.utils.papers import FAMILIES, FIDELITIES

ROOT = Path(__file__).parents[2]
PARTS = re.compile(r"^(Equation|Deviations): ", re.MULTILINE)


@cache
def by_family() -> dict[str, list[type[Method]]]:
    """Family -> its methods by name, for every method of kdbench."""
    registry.load(None)
    classes = [registry.get(name) for name in registry.names()]
    return {family: [cls for cls in classes if cls.family == family] for family in FAMILIES}


@cache
def costs() -> dict[str, dict[str, str]]:
    """Method -> its row of the committed table of costs."""
    with (ROOT / "reports" / FILE).open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def parts(cls: type[Method]) -> tuple[str, str, str]:
    """A docstring's summary, equation and deviations."""
    summary, _, equation, _, deviations = PARTS.split(inspect.getdoc(cls) or "")
    return summary, equation, deviations


def listed() -> str:
    """One line per family: the names of its methods."""
    lines = [
        f"- **{family}**: {', '.join(cls.name for cls in members)}" for family, members in by_family().items()
    ]
    return f"{sum(map(len, by_family().values()))} methods:\n\n" + "\n".join(lines)


def fidelities() -> str:
    """The words for how closely a method follows its source."""
    return "\n".join(f"- {code(word)}: {meaning}" for word, meaning in FIDELITIES.items())


def overview() -> str:
    """A table of all methods."""
    return table(
        ["method", "family", "year", "fidelity", "needs", "step × kd"], map(_line, _shipped()), right=[5]
    )


def _shipped() -> Iterator[type[Method]]:
    for members in by_family().values():
        yield from members


def _line(cls: type[Method]) -> list[Any]:
    year = cls.paper.year if cls.paper else "–"
    facts = [cls.family, year, cls.fidelity, needs.describe(cls.needs)]
    return [f"[{cls.name}](#{cls.name})", *facts, _ratio(costs().get(cls.name, {}))]


def options() -> str:
    """The options that every method inherits."""
    kinds = parameter_types(Method)
    rows = [
        [code(option.name), _type(kinds[option.name]), code(json.dumps(option.default)), OPTIONS[option.name]]
        for option in dataclasses.fields(Method)
    ]
    return table(["option", "type", "default", "meaning"], rows)


def sections() -> str:
    """A chapter per family with a section per method."""
    chapters = []
    for family, members in by_family().items():
        chapters += [f"## {family.capitalize()}: {FAMILIES[family]}", *map(_section, members)]  # type: ignore[index]
    return "\n\n".join(chapters)


def _section(cls: type[Method]) -> str:
    summary, equation, deviations = parts(cls)
    facts = [
        f"- Paper: {_reference(cls)}",
        f"- Fidelity: {cls.fidelity}. Deviations: {prose(deviations)}",
        f"- Needs: {needs.describe(cls.needs)}",
        *_options(cls),
        *_tags(cls),
        *_cost(costs().get(cls.name, {})),
        f"- File: {code(f'methods/{cls.name}.py')}, version {cls.version}",
    ]
    return "\n\n".join(
        [f"### {cls.name}", prose(summary), fence(equation), "\n".join(facts), _parameters(cls)]
    )


def _reference(cls: type[Method]) -> str:
    paper = cls.paper
    if paper is None:
        return "none"
    title = f"[{prose(paper.title)}]({paper.address})" if paper.address else prose(paper.title)
    return f"{title} ({paper.cited}){'' if paper.verified else '; title and authors not verified'}"


def _cost(cost: dict[str, str]) -> list[str]:
    if not cost:
        return []
    ratio = f"{_ratio(cost)} × kd per step" if cost["cost_x_kd"] else "no cost on that pair"
    extra = f"{int(cost['extra_params']):,}" if cost["extra_params"] else "no"
    return [f"- Measured: {ratio}; {extra} extra parameters in training"]


def _ratio(cost: dict[str, str]) -> str:
    return f"{float(cost['cost_x_kd']):.2f}" if cost.get("cost_x_kd") else "–"


def _options(cls: type[Method]) -> list[str]:
    """The options of every method that this one takes."""
    taken = registry.options(cls.name)
    return [f"- [Options](#options-of-every-method): {', '.join(map(code, taken))}"] if taken else []


def _tags(cls: type[Method]) -> list[str]:
    """The tags that are not at their defaults."""
    statements = {
        "a sample's loss depends on the others of its batch": cls.coupled and not cls.separable,
        "a sample's loss depends on the others of its batch through BatchNorm": cls.coupled and cls.separable,
        "the order of the batch counts": cls.order_dependent,
        "its modules stay in the deployed student": cls.keeps_modules,
        f"batches of at least {cls.min_batch} samples": cls.min_batch > 1,
        f"at least {cls.min_classes} classes": cls.min_classes > 2,
        f"another form of {cls.alias_of}": cls.alias_of,
    }
    true = [words for words, value in statements.items() if value]
    return [f"- Properties: {'; '.join(true)}"] if true else []


def _parameters(cls: type[Method]) -> str:
    types = field_types(cls)
    if not types:
        return "No parameters."
    defaults: Any = cls()
    off = {key: terms if isinstance(terms, str) else ", ".join(terms) for key, terms in cls.weights.items()}
    rows = [
        [
            code(key),
            _type(kind),
            code(json.dumps(getattr(defaults, key))),
            str(cls.space.get(key, "")),
            code(off.get(key, "")),
        ]
        for key, kind in types.items()
    ]
    return table(["parameter", "type", "default", "search space", "0 switches off"], rows)


def _type(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
