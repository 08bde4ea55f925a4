"""`kdbench methods`: the methods as a table, one by one, on the pairs of suites, and as BibTeX."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import DefaultVerbs, verbs
from kdbench.utils.text import grid

if TYPE_CHECKING:
    from kdbench.method import Method, Needs


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


@methods_group.command("[NAME]", hidden=True, short_help="List the methods, or show one.")
@options.method_name(required=False)
@costs_in
@options.plugins
def methods_default(name: str | None, out: Path, plugins: Path | None) -> None:
    """List the methods, or show method NAME."""
    click.echo(method(name, plugins) if name else methods(plugins, out))


@methods_group.command("list", short_help="Show year, kind, fidelity, cost and needs of each.")
@costs_in
@options.plugins
def methods_list(out: Path, plugins: Path | None) -> None:
    """Show year, kind, fidelity, cost and needs of each method.

    `kdbench bench methods` measures the cost: extra parameters, and step time
    relative to kd.
    """
    click.echo(methods(plugins, out))


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


@dataclasses.dataclass(frozen=True)
class Paper:
    """What a docstring's first paragraph says: "Title (Authors, Venue 2022, arXiv:2203.08679, eq. 7)."."""

    title: str
    authors: str
    venue: str
    year: str
    arxiv: str


def paper(cls: type[Method]) -> Paper:
    """The reference of a method; what is not said is empty."""
    first = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    found = re.match(r"(?P<title>[^(]*?)\s*\((?P<reference>.*)\)", first)
    title, reference = (found["title"], found["reference"]) if found else (first, "")
    authors, _, rest = reference.partition(",")
    year = re.search(r"\b(?:19|20)\d\d\b", rest)
    arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", rest)
    venue = rest[: year.start()].strip(" ,") if year else ""
    return Paper(title, authors, venue, year.group() if year else "", arxiv.group(1) if arxiv else "")


def fidelity(cls: type[Method]) -> str:
    """The docstring's word after ``fidelity:``."""
    found = re.search(r"fidelity:\s*(\w+)", inspect.getdoc(cls) or "")
    return found.group(1) if found else ""


def kind(cls: type[Method]) -> str:
    """By what is read: plain (no teacher), feature (maps), embedding, or logit."""
    needs = cls.needs
    if not needs.teacher:
        return "plain"
    if needs.features or needs.stages or needs.preact:
        return "feature"
    return "embedding" if needs.embedding else "logit"


def describe_needs(needs: Needs) -> str:
    """What a method needs beyond one view's logits of student and teacher."""
    words = [] if needs.teacher else ["no teacher"]
    if needs.views != ("weak",):
        words.append("+".join(needs.views) + " views")
    flags = (f.name for f in dataclasses.fields(needs) if f.name not in ("views", "teacher"))
    values = ((name, getattr(needs, name)) for name in flags)
    words += [name if value is True else f"{name} of the {value}" for name, value in values if value]
    return ", ".join(words) or "logits"


def _registry(plugins: Path | None) -> ModuleType:
    """The registry, with all methods loaded.

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


def methods(plugins: Path | None, reports: Path) -> str:
    """A line per method, and one per file that fails at import; measured costs are read in ``reports``."""
    from kdbench.bench import cost_table

    registry = _registry(plugins)
    costs = cost_table.read(reports)
    rows: list[Sequence[Any]] = [("name", "year", "kind", "fidelity", "extra", "x kd", "needs")]
    broken = []
    for entry in registry.entries():
        if entry.cls is None:
            broken.append(f"{entry.name} ({entry.origin}) fails at import: {entry.error}")
            continue
        cls = entry.cls
        extra, ratio = costs.get(entry.name, (None, float("nan")))
        measured = ("–" if extra is None else f"{extra:,}", "–" if ratio != ratio else f"{ratio:.2f}")
        facts = (paper(cls).year or "–", kind(cls), fidelity(cls) or "–")
        rows.append((entry.name, *facts, *measured, describe_needs(cls.needs)))
    hint = "" if costs else "extra parameters and cost x kd: measured by `kdbench bench methods`"
    return "\n".join(filter(None, [grid(rows), *broken, hint]))


def method(name: str, plugins: Path | None) -> str:
    """One method: docstring, parameters with type and default, needs, file."""
    registry = _registry(plugins)
    from kdbench.method import field_types

    cls = registry.get(name)
    defaults = cls()
    parameters: list[Sequence[Any]] = [("parameter", "type", "default")]
    for key, annotation in field_types(cls).items():
        label = getattr(annotation, "__name__", "") if isinstance(annotation, type) else str(annotation)
        parameters.append((key, label.replace("typing.", ""), json.dumps(getattr(defaults, key))))
    table = grid(parameters) if len(parameters) > 1 else "no parameters"
    facts = f"needs: {describe_needs(cls.needs)}\nfile: {registry.entry(name).origin}"
    return "\n\n".join([inspect.getdoc(cls) or "", table, facts])


def bibtex(name: str | None, plugins: Path | None) -> str:
    """The entry of one method or of all that cite a paper, built from the docstrings."""
    registry = _registry(plugins)
    chosen = [registry.get(name)] if name else [registry.get(n) for n in registry.names()]
    return "\n\n".join(_entry(cls) for cls in chosen)


def _entry(cls: type[Method]) -> str:
    cited = paper(cls)
    fields = {
        "title": cited.title,
        "author": re.sub(r"\s*et al\.?$", " and others", cited.authors).replace(" & ", " and "),
        "booktitle": cited.venue,
        "year": cited.year,
        "eprint": cited.arxiv,
        "archiveprefix": "arXiv" if cited.arxiv else "",
    }
    lines = [f"  {key} = {{{value}}}" for key, value in fields.items() if value]
    body = ",\n".join(lines)
    return f"@{'inproceedings' if cited.venue else 'misc'}{{{cls.name}{cited.year},\n{body}\n}}"
