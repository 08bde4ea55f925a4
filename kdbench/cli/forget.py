"""`kdbench forget`: move cells out of the results into an archive, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kdbench.cli import completion, options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError
from kdbench.suites import name_of


@verb("forget", short_help="Move cells out of the results into an archive.")
@click.argument("cells", metavar="[CELL]...", nargs=-1, shell_complete=completion.one(completion.cells))
@click.option("--suite", metavar="SUITE", default="", help="Suite of the cells.", show_default="any")
@options.row_choice
@options.names(
    "--status", "STATUS[,STATUS]", "How the run ended: error, diverged, interrupted ...", show_default="all"
)
@options.results
@click.option("--dry-run", is_flag=True, help="Print the cells and move nothing.")
@options.path(
    "--undo",
    "DIR",
    "Instead, bring back what is in this archive.",
    type=options.PATHS["PATH"],
    show_default="none",
)
def forget_command(
    cells: tuple[str, ...], suite: str, results: Path, dry_run: bool, undo: Path | None, **conditions: Any
) -> None:
    """Move CELLs (ids or their beginnings), or those that options choose, out of the results.

    Rows, curves, details, students and checkpoints go to a folder below
    RESULTS/forgotten, whence --undo brings them back. Nothing is deleted.
    """
    from kdbench.results.choice import Choice
    from kdbench.runner import forget

    if undo is not None:
        click.echo(forget.undo(undo, results))
        return
    choice = Choice(**{name: value for name, value in conditions.items() if value is not None})
    if not (cells or suite or str(choice)):
        raise KdbenchError("say what to forget: ids of cells, --suite, --methods or another option")
    chosen = forget.select(results, name_of(suite), cells, choice)
    if dry_run:
        for name, ids in chosen.items():
            click.echo(f"{name}: {' '.join(ids)}")
    else:
        click.echo(forget.forget(results, chosen))
