"""`kdbench check`: the contract that every method passes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdbench.cli import completion, options
from kdbench.cli.verbs import verb


@verb(
    "check",
    short_help="Run the contract checks on methods.",
    moved={"--cost": "kdbench bench methods", "--real": "kdbench bench epoch"},
)
@click.argument("name", metavar="[NAME|FILE]", required=False, shell_complete=completion.method_or_file)
@options.plugins
def check_command(name: str | None, plugins: Path | None) -> None:
    """Run the contract checks on every method, on method NAME or on those of FILE."""
    from kdbench import contract

    if name is not None and name.endswith(".py") and plugins == Path(options.PLUGINS):
        plugins = None  # the file alone: a copy of it may be there
    table, passed = contract.report(name, plugins)
    click.echo(table)
    sys.exit(0 if passed else 3)
