"""The command line: every verb with its arguments and options, from click."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from docs.generate.markdown import code, fence, prose, table
from kdbench.cli.main import main


def verbs() -> str:
    """A section per verb."""
    return "\n\n".join(map(_section, _walk(_top())))


def _top() -> click.Context:
    return click.Context(main, info_name="kdbench", terminal_width=80, **main.context_settings)


def _walk(context: click.Context) -> Iterator[click.Context]:
    """The contexts of all verbs below a group that help shows, in alphabetical order."""
    command = context.command
    if context.parent is not None:
        yield context
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            if not below.hidden:
                yield from _walk(click.Context(below, parent=context, info_name=name))


def _section(context: click.Context) -> str:
    command = context.command
    usage = context.get_usage().removeprefix("Usage: ")
    depth = len(context.command_path.split())  # 2 for a verb, 3 for a verb of a group
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    blocks = [f"{'#' * depth} {context.command_path}", *map(prose, paragraphs), fence(usage)]
    records = (p.get_help_record(context) for p in command.params if isinstance(p, click.Option))
    rows = [[code(flags), prose(meaning)] for flags, meaning in filter(None, records)]
    if rows:
        blocks.append(table(["option", "meaning"], rows))
    return "\n\n".join(blocks)
