"""`kdbench results`: maintenance of results files."""

from __future__ import annotations

from pathlib import Path

import click

from kdbench.cli import options
from kdbench.cli.verbs import verbs


@verbs("results", short_help="Maintain results files.")
def results_group() -> None:
    """Maintain results files."""


@results_group.command("upgrade", short_help="Rewrite files of an older kdbench with today's columns.")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "--suite",
    metavar="SUITE",
    help="Suite of the rows: a name or a .toml file.",
    show_default="the name in each row",
)
@options.plugins
def results_upgrade(files: tuple[Path, ...], suite: str | None, plugins: Path | None) -> None:
    """Rewrite results FILEs of an older kdbench with today's columns.

    Numbers do not change, and a backup of each file is kept.
    """
    from kdbench.runner import upgrade

    for file in files:
        click.echo(upgrade.upgrade(file, suite, plugins))
