"""`kdbench status`: which cells are finished, failed, running and saved."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError


@verb("status", short_help="Show finished, failed, running and saved cells.")
@options.results
@click.option("--cells", is_flag=True, help="List every cell with its id.")
def status_command(results: Path, cells: bool) -> None:
    """Show finished, failed, running and saved cells for each suite.

    What runs now is shown with its epoch and the time left; what was stopped,
    with its checkpoint.
    """
    from kdbench.runner.status import status

    failures: list[KdbenchError] = []
    click.echo(status(results, failures.append, cells))
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)
