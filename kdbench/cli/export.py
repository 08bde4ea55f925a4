"""`kdbench export`: a trained student as a file, a folder or a repository of the hub."""

from __future__ import annotations

from pathlib import Path

import click

from kdbench.cli import completion, options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError


@verb("export", short_help="Write a trained student to a file, a folder or the hub.")
@click.argument(
    "words",
    metavar="CELL | METHOD PAIR SEED  FILE",
    nargs=-1,
    shell_complete=completion.one(completion.cells),
)
@click.option("--suite", metavar="SUITE", help="Suite of the cell.", show_default="any")
@click.option(
    "--split", type=click.Choice(["test", "holdout"]), help="Split of the cell.", show_default="any"
)
@click.option(
    "--push", metavar="OWNER/NAME", help="Upload it to this repository of the hub.", show_default="no"
)
@click.option("--private", is_flag=True, help="With --push: make a new repository private.")
@options.results
def export_command(
    words: tuple[str, ...],
    suite: str | None,
    split: str | None,
    push: str | None,
    private: bool,
    results: Path,
) -> None:
    """Write the student of a finished cell to FILE, with a model card.

    CELL is an id that `kdbench status --cells` shows, or its beginning; METHOD
    PAIR SEED name one as in kd resnet56:resnet20 0. FILE ends in .safetensors,
    .pt, .pth, .onnx, .torchscript or .pt2 (torch.export); without a suffix it is
    a folder that timm loads by local-dir:FILE. With --push, FILE may be left out.
    """
    from kdbench.runner.export import export

    which, file = _parse(words, push)
    click.echo(export(which, file, results, suite=suite, split=split, push=push, private=private))


def _parse(words: tuple[str, ...], push: str | None) -> tuple[str | tuple[str, ...], str | None]:
    """The cell, and the file where there is one."""
    count = len(words)
    if count in (2, 4):
        which, file = words[:-1], words[-1]
    elif push is not None and count in (1, 3):
        which, file = words, None
    else:
        raise KdbenchError(
            "`kdbench export` takes CELL FILE, or METHOD PAIR SEED FILE; `kdbench status --cells` lists the cells"
        )
    return which[0] if len(which) == 1 else which, file
