"""`kdbench published`: the numbers that papers and repositories print, a table per pair."""

from __future__ import annotations

import click

from kdbench.cli import completion, options
from kdbench.cli.verbs import verb


@verb("published", short_help="Show what papers print: accuracies per pair, with sources.")
@options.names(
    "--methods",
    "NAME[,NAME]",
    "Methods, kdbench's or others: names or globs.",
    show_default="all",
    shell_complete=completion.several(completion.published("method")),
)
@options.names(
    "--pairs",
    "TEACHER:STUDENT[,...]",
    "Pairs: names or globs.",
    show_default="all",
    shell_complete=completion.several(completion.published_pairs),
)
@options.names(
    "--dataset",
    "NAME[,NAME]",
    "Data sets: names or globs.",
    show_default="all",
    shell_complete=completion.several(completion.published("dataset")),
)
def published_command(**conditions: list[str] | None) -> None:
    """Show what papers and repositories print, highest number first.

    A table per data set, protocol and pair, with several lines where sources
    contradict each other. `kdbench report` compares your own runs with these numbers.
    """
    from kdbench.results import published_tables

    click.echo(published_tables.text(**conditions))
