"""The command line. Data goes to stdout, progress to stderr.

A module of this room per group of verbs; each imports the room that does the work when its verb runs, so that help and
shell completion import neither torch nor pandas. Exit codes: 0 done, 1 bad input, 3 some cells failed or are left,
130/143 interrupted (state saved).
"""

from __future__ import annotations

import click

from kdbench import __version__
from kdbench.cli.bench import bench_group
from kdbench.cli.check import check_command
from kdbench.cli.export import export_command
from kdbench.cli.forget import forget_command
from kdbench.cli.methods import methods_group
from kdbench.cli.new_method import new_command
from kdbench.cli.published import published_command
from kdbench.cli.report import report_command
from kdbench.cli.results import results_group
from kdbench.cli.run import ablate_command, run_command
from kdbench.cli.status import status_command
from kdbench.cli.suites import suites_command
from kdbench.cli.teachers import teachers_group
from kdbench.cli.tune import tune_command
from kdbench.cli.verbs import SETTINGS, Main


@click.group(cls=Main, context_settings=SETTINGS)
@click.version_option(__version__, "-V", "--version")
def main() -> None:
    """Knowledge-distillation methods under one harness, one recipe, one table.

    `kdbench run` trains a small suite in minutes and prints a leaderboard;
    `kdbench COMMAND --help` explains a command.
    """


for command in (
    ablate_command,
    tune_command,
    bench_group,
    check_command,
    export_command,
    forget_command,
    methods_group,
    new_command,
    published_command,
    report_command,
    results_group,
    run_command,
    status_command,
    suites_command,
    teachers_group,
):
    main.add_command(command)
