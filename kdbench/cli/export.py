"""`kdbench export`: the weights of a trained student."""

from __future__ import annotations

from pathlib import Path

import click

from kdbench.cli import completion, options
from kdbench.cli.verbs import verb


@verb("export", short_help="Write the weights of a trained student to a file.")
@click.argument("cell", shell_complete=completion.one(completion.cells))
@click.argument("file", type=click.Path(path_type=Path))
@options.results
def export_command(cell: str, file: Path, results: Path) -> None:
    """Write the student of the finished CELL to FILE (.safetensors or .pth).

    CELL is an id of the results file, or its beginning.
    """
    from kdbench.runner import export

    click.echo(export.export(cell, file, results))
