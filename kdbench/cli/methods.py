"""The methods as a table, one by one, and as BibTeX."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench import registry
from kdbench.bench import method_cost
from kdbench.errors import KdbenchError
from kdbench.method import Method, Needs, field_types
from kdbench.utils.papers import FAMILIES, FIDELITIES
from kdbench.utils.text import grid


def describe_needs(needs: Needs) -> str:
    """What a method needs beyond one view's logits of student and teacher."""
    words = [] if needs.teacher else ["no teacher"]
    if needs.views != ("weak",):
        words.append("+".join(needs.views) + " views")
    flags = (f.name for f in dataclasses.fields(needs) if f.name not in ("views", "teacher"))
    asked = ((name, getattr(needs, name)) for name in flags)
    words += [name if value is True else f"{name} of the {value}" for name, value in asked if value]
    return ", ".join(words) or "logits"


def methods(plugins: Path | None, reports: Path) -> str:
    """A line a method, and one for each file that fails at import. Extra parameters and cost: see `checks.cost`."""
    registry.load(plugins)
    costs = method_cost.known(reports)
    rows: list[Sequence[Any]] = [("name", "year", "family", "fidelity", "extra", "x kd", "needs")]
    broken = []
    for entry in registry.entries():
        if entry.cls is None:
            broken.append(f"{entry.name} ({entry.origin}) fails at import: {entry.error}")
            continue
        cls = entry.cls
        extra, ratio = costs.get(entry.name, (None, float("nan")))
        measured = ("–" if extra is None else f"{extra:,}", "–" if ratio != ratio else f"{ratio:.2f}")
        facts = (cls.paper.year if cls.paper else "–", cls.family or "–", cls.fidelity or "–")
        rows.append((entry.name, *facts, *measured, describe_needs(cls.needs)))
    hint = "" if costs else "extra parameters and cost x kd: measured by `kdbench check --cost`"
    return "\n".join(filter(None, [grid(rows), *broken, hint]))


def method(name: str, plugins: Path | None) -> str:
    """One method: docstring, parameters with type and default, paper, family, fidelity, needs, file."""
    registry.load(plugins)
    cls = registry.get(name)
    defaults = cls()
    parameters: list[Sequence[Any]] = [("parameter", "type", "default")]
    for key, annotation in field_types(cls).items():
        label = getattr(annotation, "__name__", "") if isinstance(annotation, type) else str(annotation)
        parameters.append((key, label.replace("typing.", ""), json.dumps(getattr(defaults, key))))
    table = grid(parameters) if len(parameters) > 1 else "no parameters"
    facts = [*_origin(cls), f"needs: {describe_needs(cls.needs)}", f"file: {registry.entry(name).origin}"]
    return "\n\n".join([inspect.getdoc(cls) or "", table, "\n".join(facts)])


def _origin(cls: type[Method]) -> list[str]:
    """The lines on paper, family and fidelity, as far as the method says them."""
    lines = [f"paper: {cls.paper.title} ({cls.paper.cited})"] if cls.paper else []
    lines += [f"family: {cls.family} ({FAMILIES[cls.family]})"] if cls.family else []
    return lines + ([f"fidelity: {cls.fidelity} ({FIDELITIES[cls.fidelity]})"] if cls.fidelity else [])


def bibtex(name: str | None, plugins: Path | None) -> str:
    """The BibTeX entry of one method, or of every method that comes from a paper.

    Raises KdbenchError for a method without a paper.
    """
    registry.load(plugins)
    chosen = [registry.get(name)] if name else [registry.get(n) for n in registry.names()]
    entries = [cls.paper.bibtex(f"{cls.name}{cls.paper.year}") for cls in chosen if cls.paper]
    if name and not entries:
        raise KdbenchError(
            f"method {name!r} names no paper; `kdbench methods {name}` says where it comes from"
        )
    return "\n\n".join(entries)
