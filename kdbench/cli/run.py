"""`kdbench run` and `kdbench ablate`: train the missing cells of a selection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.plan.selection import Selection
    from kdbench.runner.options import RunOptions


@verb("run", short_help="Train every missing cell and print the leaderboard.")
@options.methods()
@options.training
@options.timing
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
def run_command(dry_run: bool, time_steps: bool, price: float | None, **chosen: Any) -> None:
    """Train all methods x pairs x seeds and print the leaderboard.

    Finished runs are skipped; interrupted runs continue from their last
    checkpoint: type the same command again to resume.
    """
    from kdbench.runner.progress import shown
    from kdbench.runner.run import execute, resolve

    _check_timing(dry_run, time_steps, price)
    selection, how = resolve(**chosen)
    if dry_run:
        _print_plan(selection, how, time_steps, price)
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
@options.timing
@options.sets("Further values of METHOD's parameters, one parameter at a time. Repeatable.")
def ablate_command(method: str, dry_run: bool, time_steps: bool, price: float | None, **chosen: Any) -> None:
    """Ablate METHOD: drop each loss term, keep each alone, toggle each option.

    Evaluates on the holdout split. Type the same command again to resume.
    """
    from kdbench.runner import ablation
    from kdbench.runner.progress import shown
    from kdbench.runner.run import execute

    _check_timing(dry_run, time_steps, price)
    selection, how = ablation.resolve(method, **chosen)
    if dry_run:
        _print_plan(selection, how, time_steps, price)
        return
    outcome = execute(selection, how, shown())
    if text := outcome.leaderboard(baseline=method):
        click.echo(text)
        click.echo("`kdbench report` draws the ablation and the sweeps", err=True)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)


def _check_timing(dry_run: bool, time_steps: bool, price: float | None) -> None:
    if price is not None and not time_steps:
        raise KdbenchError("--price needs --time-steps, which says how many hours there are to pay")
    if time_steps and not dry_run:
        raise KdbenchError("--time-steps needs --dry-run: it plans, and trains nothing")


def _print_plan(selection: Selection, how: RunOptions, time_steps: bool, price: float | None) -> None:
    from kdbench.bench import plan_hours
    from kdbench.runner.describe import describe
    from kdbench.runner.progress import to_stderr

    click.echo(describe(selection, how, to_stderr))
    if time_steps:
        click.echo(plan_hours.report(selection, how, to_stderr, price))
