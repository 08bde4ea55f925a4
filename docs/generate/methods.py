"""The methods: a list by family, an overview, and a section per method."""

from __future__ import annotations

import csv
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
from kdbench.cli import methods as described
from kdbench.method import Method, field_types
from kdbench.utils.papers import FAMILIES, Paper

ROOT = Path(__file__).parents[2]
PARTS = re.compile(r"^(Equation|Deviations):\s*", re.MULTILINE)


@cache
def shipped() -> tuple[type[Method], ...]:
    """Every method of kdbench, by family and name."""
    registry.load(None)
    families = list(FAMILIES)
    classes = map(registry.get, registry.names())
    return tuple(sorted(classes, key=lambda cls: (families.index(cls.family), cls.name)))


def by_family() -> Iterator[tuple[str, list[type[Method]]]]:
    """(family, its methods)"""
    for family in FAMILIES:
        yield family, [cls for cls in shipped() if cls.family == family]


@cache
def costs() -> dict[str, dict[str, str]]:
    """method -> its row of the committed table of costs."""
    with (ROOT / "reports" / FILE).open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def parts(cls: type[Method]) -> dict[str, str]:
    """What a docstring says under Equation and Deviations."""
    pieces = PARTS.split(inspect.getdoc(cls) or "")[1:]
    return {name: text.strip() for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def listed() -> str:
    """One line per family: the names of its methods."""
    lines = (f"- **{family}**: {', '.join(cls.name for cls in members)}" for family, members in by_family())
    return f"{len(shipped())} methods:\n\n" + "\n".join(lines)


def overview() -> str:
    """A table of all methods."""
    rows = []
    for cls in shipped():
        cost = costs().get(cls.name, {})
        link = f"[{cls.name}](#{cls.name})"
        facts = (cls.family, cls.paper.year if cls.paper else "–", cls.fidelity)
        rows.append([link, *facts, described.describe_needs(cls.needs), _ratio(cost)])
    return table(["method", "family", "year", "fidelity", "needs", "step × kd"], rows, right=[5])


def sections() -> str:
    """A chapter per family with a section per method."""
    chapters = []
    for family, members in by_family():
        chapters += [f"## {family.capitalize()}", f"Uses {FAMILIES[family]}.", *map(_section, members)]
    return "\n\n".join(chapters)


def _section(cls: type[Method]) -> str:
    said, cost = parts(cls), costs().get(cls.name, {})
    facts = [
        f"- Fidelity: {cls.fidelity}. Deviations: {prose(said['Deviations'])}",
        f"- Needs: {described.describe_needs(cls.needs)}",
        *_tags(cls),
        *_cost(cost),
        f"- File: {code(f'methods/{cls.name}.py')}, version {cls.version}",
    ]
    blocks = [f"### {cls.name}", _reference(cls), fence(said["Equation"]), "\n".join(facts), _parameters(cls)]
    return "\n\n".join(blocks)


def _reference(cls: type[Method]) -> str:
    summary = prose((inspect.getdoc(cls) or "").partition("\n")[0])
    if cls.paper is None:
        return summary
    place = f"{cls.paper.venue} {cls.paper.year}".strip()
    cited = ", ".join([*cls.paper.authors, place])
    doubt = "" if cls.paper.verified else " Title and authors are not verified."
    return f"{summary}\n\n*{cls.paper.title}.* {cited}.{_link(cls.paper)}{doubt}"


def _link(paper: Paper) -> str:
    if paper.arxiv:
        return f" [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})."
    return f" <{paper.url}>." if paper.url else ""


def _cost(cost: dict[str, str]) -> list[str]:
    if not cost:
        return []
    ratio = f"{_ratio(cost)} × kd per step" if cost["cost_x_kd"] else "no cost on that pair"
    extra = f"{int(cost['extra_params']):,}" if cost["extra_params"] else "no"
    return [f"- Measured: {ratio}; {extra} extra parameters in training"]


def _ratio(cost: dict[str, str]) -> str:
    return f"{float(cost['cost_x_kd']):.2f}" if cost.get("cost_x_kd") else "–"


def _tags(cls: type[Method]) -> list[str]:
    """The tags that are not at their defaults."""
    said = {
        "a sample's loss depends on the others of its batch": cls.coupled,
        "the order of the batch counts": cls.order_dependent,
        "its modules stay in the deployed student": cls.keeps_modules,
        f"batches of at least {cls.min_batch} samples": cls.min_batch > 1,
        f"at least {cls.min_classes} classes": cls.min_classes > 2,
        f"another form of {cls.alias_of}": cls.alias_of,
    }
    true = [words for words, value in said.items() if value]
    return [f"- Properties: {'; '.join(true)}"] if true else []


def _parameters(cls: type[Method]) -> str:
    types = field_types(cls)
    if not types:
        return "No parameters."
    defaults: Any = cls()
    off = {key: terms if isinstance(terms, str) else ", ".join(terms) for key, terms in cls.weights.items()}
    rows = [
        [code(key), _type(kind), code(json.dumps(getattr(defaults, key))), code(off.get(key, ""))]
        for key, kind in types.items()
    ]
    return table(["parameter", "type", "default", "0 switches off"], rows)


def _type(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
