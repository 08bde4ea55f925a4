"""`kdbench run` and `kdbench ablate`: train the missing cells of a selection."""

from __future__ import annotations

import sys
from typing import Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb


@verb("run", short_help="Train every missing cell and print the leaderboard.")
@options.methods()
@options.training
@options.sets("Value of a method's parameter; several make several cells. Repeatable.")
@options.path(
    "--params",
    "FILE",
    "Settings that `kdbench tune` wrote; they train beside the suite's.",
    show_default="none",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(0),
    help="Processes that decode streamed images.",
    show_default="the suite's, else one per core up to 8",
)
@options.split
@options.path(
    "--teacher-cache", "DIR", "Folder that keeps teacher logits for later runs.", show_default="none"
)
@options.graphs
@click.option("--force", is_flag=True, help="Train finished cells again; their rows are added.")
def run_command(dry_run: bool, **chosen: Any) -> None:
    """Train all methods x pairs x seeds and print the leaderboard.

    Finished runs are skipped; interrupted runs continue from their last
    checkpoint: type the same command again to resume.
    """
    from kdbench.runner.describe import describe
    from kdbench.runner.progress import shown, to_stderr
    from kdbench.runner.run import execute, resolve

    selection, how = resolve(**chosen)
    if dry_run:
        click.echo(describe(selection, how, to_stderr))
        return
    outcome = execute(selection, how, shown())
    if text := outcome.leaderboard():
        click.echo(text)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)


@verb("ablate", short_help="Train a method without each of its parts.")
@options.method_name("method")
@options.training
@options.sets("Further values of METHOD's parameters, one parameter at a time. Repeatable.")
def ablate_command(method: str, dry_run: bool, **chosen: Any) -> None:
    """Ablate METHOD: drop each loss term, keep each alone, toggle each option.

    Evaluates on the holdout split. Type the same command again to resume.
    """
    from kdbench.runner import ablation
    from kdbench.runner.describe import describe
    from kdbench.runner.progress import shown, to_stderr
    from kdbench.runner.run import execute

    selection, how = ablation.resolve(method, **chosen)
    if dry_run:
        click.echo(describe(selection, how, to_stderr))
        return
    outcome = execute(selection, how, shown())
    if text := outcome.leaderboard(baseline=method):
        click.echo(text)
        click.echo("`kdbench report` draws the ablation and the sweeps", err=True)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)
