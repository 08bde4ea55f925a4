"""What the shell offers after the tab key: suites, methods, pairs, cells. Nothing here imports torch or pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from kdbench.suites.pairs import pair_name

Complete = Callable[[click.Context, click.Parameter, str], list[str]]
USUAL = "digits"  # the suite whose pairs are offered where none is named


def one(choices: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Complete one of the choices."""

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
        return [name for name in choices(context) if name.startswith(start)]

    return complete


def several(choices: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Complete the last of a comma-separated list by a choice that is not in it yet."""

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
        head, comma, last = start.rpartition(",")
        chosen = head.split(",")
        return [
            f"{head}{comma}{name}"
            for name in choices(context)
            if name.startswith(last) and name not in chosen
        ]

    return complete


def suites(context: click.Context) -> list[str]:
    """The shipped suites, and suite files here."""
    from kdbench.suites import names

    files = (file.name for file in Path().glob("[!.]*.toml"))
    return [*names(), *sorted(name for name in files if name != "pyproject.toml")]


def methods(context: click.Context) -> list[str]:
    """The shipped methods and those of the plug-ins that the command would load."""
    from kdbench.utils.method_facts import method_files, read, shipped

    place: Path | None = context.params.get("plugins")
    files = [] if place is None else [place] if place.is_file() else method_files(place)
    own = (facts.name for file in files for facts in _readable(read, file))
    return sorted({*shipped(), *own})


def _readable(read: Callable, file: Path) -> Iterator:
    try:
        yield from read(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # `kdbench run` says what is wrong with it
        return


def methods_or_all(context: click.Context) -> list[str]:
    """The methods, and the word for all of them."""
    return ["all", *methods(context)]


def pairs(context: click.Context) -> list[str]:
    """The pairs of the suite that the command line names so far, else of the usual one."""
    from kdbench import suites as known
    from kdbench.errors import KdbenchError

    chosen = context.params.get("suite") or USUAL
    names = [chosen] if isinstance(chosen, str) else chosen
    try:
        return list(dict.fromkeys(str(pair) for name in names for pair in known.load(name).pairs))
    except (KdbenchError, OSError):
        return []


def published(column: str) -> Callable[[click.Context], list[str]]:
    """What stands in a column of the published numbers."""
    return lambda context: list(dict.fromkeys(row[column] for row in _published() if row[column]))


def published_pairs(context: click.Context) -> list[str]:
    """The pairs of which numbers are published."""
    named = ((row["teacher"], row["student"]) for row in _published())
    return list(dict.fromkeys(pair_name(*pair) for pair in named if all(pair)))


def _published() -> Iterator[dict[str, str]]:
    yield from csv.DictReader(
        io.StringIO((files("kdbench.results") / "published.csv").read_text("utf-8"), newline="")
    )


def cells(context: click.Context) -> list[str]:
    """The ids of all cells in the folder of results."""
    ids: dict[str, None] = {}
    for file in sorted(Path(context.params.get("results") or "results").glob("*.csv")):
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                ids |= dict.fromkeys(row["cell_id"] for row in csv.DictReader(lines) if row.get("cell_id"))
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return list(ids)


def method_or_file(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """A method, else what the shell finds among files."""
    found = [CompletionItem(name) for name in methods(context) if name.startswith(start)]
    return found or [CompletionItem(start, type="file")]
