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
def run_command(
    dry_run: bool, force: bool, jobs: int, max_hours: float | None, seeds: str | None, **chosen: Any
) -> None:
    """Train all methods x pairs x seeds and print the leaderboard.

    Finished runs are skipped; interrupted runs continue from their last
    checkpoint: type the same command again to resume.
    """
    from kdbench.plan.selection import parse_seeds
    from kdbench.report.write import leaderboard_text
    from kdbench.runner import describe
    from kdbench.runner import run as driver
    from kdbench.runner.progress import shown
    from kdbench.runner.session import prepare

    chosen["seeds"] = parse_seeds(seeds) if seeds is not None else None
    if dry_run:
        click.echo(describe.describe(prepare(**chosen), force))
        return
    outcome = driver.run(jobs=jobs, force=force, max_hours=max_hours, progress=shown(), **chosen)
    if not outcome.records.empty:
        click.echo(leaderboard_text(outcome.suite, outcome.records))
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)


@verb("ablate", short_help="Train a method without each of its parts.")
@options.method_name("method")
@options.training
@options.sets("Further values of METHOD's parameters, one parameter at a time. Repeatable.")
def ablate_command(
    method: str, dry_run: bool, jobs: int, max_hours: float | None, seeds: str | None, **chosen: Any
) -> None:
    """Ablate METHOD: drop each loss term, keep each alone, toggle each option.

    Evaluates on the holdout split. Type the same command again to resume.
    """
    from kdbench.plan.selection import parse_seeds
    from kdbench.report.write import leaderboard_text
    from kdbench.runner import ablation as room
    from kdbench.runner.progress import shown

    chosen["seeds"] = parse_seeds(seeds) if seeds is not None else None
    if dry_run:
        click.echo(room.describe(method, **chosen))
        return
    outcome = room.run(method, jobs=jobs, max_hours=max_hours, progress=shown(), **chosen)
    if not outcome.records.empty:
        click.echo(leaderboard_text(outcome.suite, outcome.records, baseline=method))
        click.echo("`kdbench report` draws the ablation and the sweeps", err=True)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)
