"""`kdbench tune`: search the parameters of methods on the holdout split, with equal budgets."""

from __future__ import annotations

import sys
from typing import Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb


@verb("tune", short_help="Search methods' parameters with equal budgets.")
@options.methods()
@options.training
@click.option(
    "--trials",
    metavar="N",
    type=click.IntRange(1),
    help="Trials of each method and pair, the default's values among them.",
    show_default="24",
)
@click.option(
    "--hours",
    metavar="HOURS",
    type=click.FloatRange(0, min_open=True),
    help="In place of --trials: hours of training of each method and pair.",
    show_default="none",
)
@click.option(
    "--batch", metavar="N", type=click.IntRange(1), default=8, help="Trials that train side by side."
)
@options.path("--space", "FILE", "TOML file with ranges over those of the methods.", show_default="none")
@click.option("--tune-recipe", is_flag=True, help="Search learning rate and weight decay too.")
@click.option(
    "--prune",
    is_flag=True,
    help="Stop runs that are below the median of earlier trials after the same epoch.",
)
def tune_command(dry_run: bool, **chosen: Any) -> None:
    """Search the parameters of each method on the holdout split.

    Every method gets the same number of trials, or the same hours. The first
    trial has the suite's values. Type the same command again to resume, or
    with more trials to go on. `kdbench run --params results/SUITE.tuned.toml`
    trains the best settings beside the defaults.
    """
    from kdbench.results.trials import best
    from kdbench.runner.progress import shown
    from kdbench.runner.tuning import execute, plan_text, resolve

    tuning, how = resolve(**chosen)
    if dry_run:
        click.echo(plan_text(tuning))
        return
    tuned = execute(tuning, how, shown())
    if len(tuned.rows):
        click.echo(tuned.table())
        if best(tuned.rows):
            click.echo(f"`kdbench run --params {tuned.file}` trains the best beside the defaults", err=True)
        else:
            statuses = ", ".join(tuned.rows["status"].unique())
            click.echo(f"no trial has an accuracy, so none is the best; their statuses: {statuses}", err=True)
    if not tuned.complete:
        click.echo("not all trials are done: type the same command to go on", err=True)
    sys.exit(tuned.exit_code)
