"""`kdbench methods`: the methods as a table, one by one, on the pairs of suites, and as BibTeX."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import DefaultVerbs, verbs
from kdbench.errors import KdbenchError, unknown
from kdbench.utils import method_facts, needs
from kdbench.utils.method_facts import MethodFacts
from kdbench.utils.papers import FAMILIES, FIDELITIES, Family
from kdbench.utils.text import grid

if TYPE_CHECKING:
    from kdbench.method import Method

TITLE = 34  # letters of a paper's title in the list: a line has 80


@verbs(
    "methods",
    cls=DefaultVerbs,
    default="[NAME]",
    short_help="List the methods, or show one.",
    moved={"--pairs": "kdbench methods pairs", "--bibtex": "kdbench methods bibtex"},
)
def methods_group() -> None:
    """List the methods, or show method NAME.

    `kdbench methods` is short for `kdbench methods list`, and `kdbench methods
    NAME` for `kdbench methods show NAME`.
    """


costs_in = options.path(
    "--out", "DIR", "Folder of the reports, where measured costs are read.", default="reports"
)


of_family = click.option(
    "--family", type=click.Choice(list(FAMILIES)), show_default="all", help="Family to list."
)


@methods_group.command("[NAME]", hidden=True, short_help="List the methods, or show one.")
@options.method_name(required=False)
@of_family
@costs_in
@options.plugins
def methods_default(name: str | None, family: Family | None, out: Path, plugins: Path | None) -> None:
    """List the methods, or show method NAME."""
    if name and family:
        raise KdbenchError(f"name either the method {name!r} or a family, not both")
    click.echo(method(name, plugins) if name else methods(plugins, out, family))


@methods_group.command("list", short_help="Show year, family, fidelity, cost and needs of each.")
@of_family
@costs_in
@options.plugins
def methods_list(family: Family | None, out: Path, plugins: Path | None) -> None:
    """Show year, family, fidelity, cost and needs of each method.

    `kdbench bench methods` measures the cost: extra parameters, and step time
    relative to kd.
    """
    click.echo(methods(plugins, out, family))


@methods_group.command("show", short_help="Show one method: formula, parameters and file.")
@options.method_name()
@options.plugins
def methods_show(name: str, plugins: Path | None) -> None:
    """Show method NAME: its formula, parameters with defaults, needs and file."""
    click.echo(method(name, plugins))


@methods_group.command("pairs", short_help="Show which method runs on which pair.")
@options.method_name(required=False)
@options.several_suites("Suites whose pairs are tried.", show_default="cifar100,cifar100-timm")
@options.plugins
def methods_pairs(name: str | None, suite: list[str] | None, plugins: Path | None) -> None:
    """Try one step of every method, or of method NAME, on every pair of suites.

    Prints a table of methods and pairs, and why a method skips or fails.
    """
    from kdbench.contract import compatibility

    table, passed = compatibility.report(suite, plugins, name)
    click.echo(table)
    sys.exit(0 if passed else 3)


@methods_group.command("bibtex", short_help="Print the BibTeX entry of one method or of all.")
@options.method_name(required=False)
@options.plugins
def methods_bibtex(name: str | None, plugins: Path | None) -> None:
    """Print the BibTeX entry of every method, or of method NAME."""
    click.echo(bibtex(name, plugins))


def _registry(plugins: Path | None) -> ModuleType:
    """Return the registry, with all methods loaded.

    The garbage collector pauses: the objects that importing torch makes all stay, and searching them for garbage time
    and again takes a fifth of the time that this verb needs.
    """
    gc.disable()
    try:
        from kdbench import registry

        registry.load(plugins)
    finally:
        gc.enable()
    return registry


def _facts(plugins: Path | None) -> tuple[dict[str, MethodFacts], list[str]]:
    """Return name -> facts of every method, and a line per file that fails at import.

    The shipped files are read without torch; methods from elsewhere, and files that cannot be read so, are imported.
    """
    if plugins is None and not entry_points(group="kdbench.methods"):
        with contextlib.suppress(SyntaxError, ValueError):
            return dict(sorted(method_facts.shipped().items())), []
    facts, broken = {}, []
    for entry in _registry(plugins).entries():
        if cls := entry.cls:
            facts[entry.name] = MethodFacts(cls.name, cls.paper, cls.family, cls.fidelity, cls.needs)
        else:
            broken.append(f"{entry.name} ({entry.origin}) fails at import: {entry.error}")
    return facts, broken


def methods(plugins: Path | None, reports: Path, family: Family | None = None) -> str:
    """A line per method (of ``family``), and one per file that fails at import; ``reports`` holds measured costs."""
    from kdbench.bench import cost_table

    facts, broken = _facts(plugins)
    costs = cost_table.read(reports)
    last = ("extra", "x kd", "needs") if costs else ("paper",)
    rows: list[Sequence[Any]] = [("name", "year", "family", "fidelity", *last)]
    for name, one in facts.items():
        if family not in (None, one.family):
            continue
        origin = (one.paper.year if one.paper else "–", one.family or "–", one.fidelity or "–")
        title = textwrap.shorten(one.paper.title, TITLE, placeholder=" ...") if one.paper else "–"
        more = (*_measured(costs.get(name)), needs.describe(one.needs)) if costs else (title,)
        rows.append((name, *origin, *more))
    hint = (
        "" if costs else "measured by `kdbench bench methods`: extra parameters and cost in multiples of kd's"
    )
    return "\n".join(filter(None, [grid(rows), *broken, hint]))


def _measured(cost: tuple[int | None, float] | None) -> tuple[str, str]:
    """Parameters that a method adds to the student, and its cost in multiples of kd's."""
    extra, ratio = cost or (None, float("nan"))
    return "–" if extra is None else f"{extra:,}", "–" if ratio != ratio else f"{ratio:.2f}"


def method(name: str, plugins: Path | None) -> str:
    """One method: docstring, parameters with type and default, options, paper, family, fidelity, needs, file."""
    registry = _registry(plugins)
    from kdbench.method import field_types, parameter_types
    from kdbench.results import published

    cls = registry.get(name)
    taken = registry.options(name)
    own = _grid("parameter", cls, field_types(cls)) or "no parameters"
    shared = {key: kind for key, kind in parameter_types(cls).items() if key in taken}
    inherited = _grid("option of every method", cls, shared)
    facts = [*_origin(cls), f"needs: {needs.describe(cls.needs)}", f"file: {registry.entry(name).origin}"]
    if printed := (published.load()["method"] == name).sum():
        facts.append(f"published: {printed} numbers; `kdbench published --methods {name}`")
    return "\n\n".join(filter(None, [inspect.getdoc(cls) or "", own, inherited, "\n".join(facts)]))


def _grid(title: str, cls: type[Method], kinds: Mapping[str, Any]) -> str:
    """A line per field of ``kinds``, with type, default and search space; empty where there is none."""
    defaults = cls()
    rows: list[Sequence[Any]] = []
    for key, annotation in kinds.items():
        label = getattr(annotation, "__name__", "") if isinstance(annotation, type) else str(annotation)
        space = str(cls.space.get(key, "–"))
        rows.append((key, label.replace("typing.", ""), json.dumps(getattr(defaults, key)), space))
    return grid([(title, "type", "default", "search space"), *rows]) if rows else ""


def _origin(cls: type[Method]) -> list[str]:
    """The lines on paper, family and fidelity, as far as the method says them."""
    lines = [f"paper: {cls.paper.title} ({cls.paper.cited})"] if cls.paper else []
    lines += [f"family: {cls.family} ({FAMILIES[cls.family]})"] if cls.family else []
    return lines + ([f"fidelity: {cls.fidelity} ({FIDELITIES[cls.fidelity]})"] if cls.fidelity else [])


def bibtex(name: str | None, plugins: Path | None) -> str:
    """The BibTeX entry of one method, or of every method that comes from a paper.

    Raises KdbenchError for an unknown method and for one without a paper.
    """
    facts, _ = _facts(plugins)
    if name and name not in facts:
        raise unknown("method", name, list(facts))
    chosen = [facts[name]] if name else facts.values()
    entries = [one.bibtex for one in chosen if one.bibtex]
    if name and not entries:
        raise KdbenchError(
            f"method {name!r} names no paper; `kdbench methods {name}` says where it comes from"
        )
    return "\n\n".join(entries)
